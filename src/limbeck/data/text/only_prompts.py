"""The prompts of a batch alone, to generate from."""

from __future__ import annotations

import torch

from limbeck.signals import IGNORED, Batch
from limbeck.tokens import Tokens


def only_prompts(batch: Batch, pad: int) -> Batch:
    """The prompts of a batch of text alone, filled up on the left with ``pad``, as a network takes them to generate from.

    A prompt reaches to the first position that is learnt; a row in which nothing is learnt is a prompt as a whole, and one
    that is learnt from its start gives its first token. labels are all -100. It waits for the device, to learn how long the
    longest prompt is.

    Raises ValueError on packed rows, whose prompts are several.
    """
    text: Tokens = batch.inputs
    if text.documents is not None or batch.labels.ndim != 2:
        raise ValueError("packed rows and rows with a class have no prompt of their own to generate from.")
    learnt = batch.labels != IGNORED
    places = torch.arange(text.tokens.shape[1], device=learnt.device).expand_as(learnt)
    first = torch.where(learnt.any(dim=1), learnt.long().argmax(dim=1), places.shape[1])
    inside = text.attention & (places <= first[:, None])
    counts = inside.sum(dim=1)
    width = max(1, int(counts.max()))
    # A stable sort brings what is inside to the right end and keeps its order.
    order = inside.long().argsort(dim=1, stable=True)[:, -width:]
    attention = inside.gather(1, order)
    tokens = text.tokens.gather(1, order).masked_fill(~attention, pad)
    positions = text.positions.gather(1, order).masked_fill(~attention, 0)
    return Batch(Tokens(tokens, attention, positions), torch.full_like(tokens, IGNORED), batch.index)

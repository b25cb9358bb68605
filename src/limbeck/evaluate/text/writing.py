"""How fast language models write, with a cache of what they have read."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.text import TokenSplit
from limbeck.evaluate.text.figures import Writing, WritingCosts
from limbeck.machine import device_name
from limbeck.policies import Draw, Prompts, Sampling, Writer, generate

_REPEATS = 5
_NEW, _ROWS = 64, 16  # at most, so that a large model is measured in seconds


def writing_costs(
    models: Mapping[str, nn.Module],
    rows: TokenSplit,
    *,
    vocabulary: int,
    most: int,
    batch_size: int,
    device: torch.device,
    teacher: str | None = None,
) -> WritingCosts:
    """Greedy writing, one answer at a time and in batches of up to 16, the models in turn.

    rows: whose median prompt is what all answers begin with; of text without prompts the first half of a row. most: tokens of
    an answer, 64 at most and no more than the contexts have room for. No answer ends early: the end of a text is ruled out.

    Raises:
        LimbeckError: a model that cannot write.
    """
    prompt = _prompt(rows).to(device)
    writers = {who: Writer(model, Sampling(temperature=0), vocabulary) for who, model in models.items()}
    rooms = [writer.context - prompt.shape[1] for writer in writers.values() if writer.context is not None]
    new = max(1, min(most, _NEW, *rooms))
    found: dict[str, tuple[Writing, ...]] = dict.fromkeys(models, ())
    for size in dict.fromkeys((1, min(batch_size, _ROWS))):
        speeds: dict[str, list[float]] = {who: [] for who in models}
        for _ in range(_REPEATS + 1):
            for who, writer in writers.items():
                speeds[who].append(_speed(writer, prompt.expand(size, -1), rows, new))
        for who, each in speeds.items():
            made = Writing(size, prompt.shape[1], new, statistics.median(each[1:]))
            found[who] = (*found[who], made)
    theirs = found.get(teacher or "")
    ratios = {who: _ratios(theirs, each) for who, each in found.items() if who != teacher} if theirs else None
    return WritingCosts(device_name(device), found, ratios)


def _prompt(rows: TokenSplit) -> Tensor:
    """(1, P) the prompt of median length; the first half of a row where there are none."""
    lengths = rows.prompts if bool((rows.prompts > 0).all()) else (rows.lengths + 1) // 2
    place = int(lengths.argsort()[len(lengths) // 2])
    start = int(rows.ends[place] - rows.lengths[place])
    return rows.tokens[start : start + int(lengths[place])].long()[None]


def _speed(writer: Writer, tokens: Tensor, rows: TokenSplit, new: int) -> float:
    special = rows.special
    whole = torch.ones_like(tokens, dtype=torch.bool)
    prompts = Prompts(tokens, whole, pad=special.pad, end=special.end, max_new_tokens=new)
    with _endless(writer.model, special.end):
        return generate(writer, prompts, Draw(0)).statistics.tokens_per_second


@contextmanager
def _endless(model: nn.Module, end: int) -> Iterator[None]:
    """Within it no text ends."""

    def rule_out(module: nn.Module, given: Any, made: Any) -> None:
        made.logits[..., end] = -torch.inf

    handle = model.register_forward_hook(rule_out)
    try:
        yield
    finally:
        handle.remove()


def _ratios(teacher: tuple[Writing, ...], student: tuple[Writing, ...]) -> tuple[float, ...]:
    return tuple(
        mine.tokens_per_second / theirs.tokens_per_second for mine, theirs in zip(student, teacher, strict=True)
    )

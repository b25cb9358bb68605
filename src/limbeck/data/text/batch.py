"""``TokenBatch``: a batch of tokens as both networks see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

IGNORED = -100
"""The label of a position where nothing is learnt."""


@dataclass(frozen=True)
class TokenBatch:
    """A batch of B rows of at most L tokens.

    tokens: (B, L) int64. attention: (B, L) bool, False where a row is only filled up.
    positions: (B, L) int64, the place of each token in its example, from 0; 0 where a row is filled up.
    labels: (B, L) int64, at each position the token that comes next, -100 where that is not learnt: in the prompt but for its
        last token, at the last token of an example, and where a row is filled up. Logits at a position are compared with
        the label at the same one; nothing is shifted again. For a classification (B,) int64 classes or float32 numbers.
    index: (B,) int64, see ``TokenSplit``; where rows are packed (B, K), of the examples in each row, -1 for none.
    documents: (B, L) int64, where rows are packed the number of the example in its row, from 0, and -1 where the row is
        filled up; None where each row is one example.
    types: (B, L) int64, which sentence of a pair a token is of; None where the tokenizer does not tell.
    """

    tokens: Tensor
    attention: Tensor
    positions: Tensor
    labels: Tensor
    index: Tensor
    documents: Tensor | None = None
    types: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def learnt(self) -> Tensor:
        """(B, L) bool, where a next token is learnt."""
        return self.labels != IGNORED

    def block_mask(self) -> Tensor:
        """(B, 1, L, L) bool: whether position i may look at position j ≤ i, which is of the same example.

        A filled position looks at itself alone, since a softmax over nothing is not a number.
        """
        length = self.tokens.shape[1]
        group = torch.where(self.attention, 0, -1) if self.documents is None else self.documents
        same = (group[:, :, None] == group[:, None, :]) & (group >= 0)[:, :, None]
        earlier = torch.ones(length, length, dtype=torch.bool, device=group.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=group.device)
        return ((same & earlier) | itself)[:, None]

    def inputs(self) -> dict[str, Tensor]:
        """What a causal network of Hugging Face takes: ``input_ids``, ``attention_mask``, ``position_ids``.

        Packed rows come with the block mask (B, 1, L, L), others with a mask (B, L). The implementations of attention that
        take it are ``sdpa`` and, with the mask made additive by the caller, ``eager``.
        """
        mask = self.attention.long() if self.documents is None else self.block_mask()
        return {"input_ids": self.tokens, "attention_mask": mask, "position_ids": self.positions}

    def sequence_inputs(self) -> dict[str, Tensor]:
        """What a network of Hugging Face that classifies sequences takes."""
        found = {"input_ids": self.tokens, "attention_mask": self.attention.long()}
        return found if self.types is None else {**found, "token_type_ids": self.types}

    def map(self, function: Callable[[Tensor], Tensor]) -> TokenBatch:
        """A copy with ``function`` applied to every tensor that is present."""
        values: list[Any] = [None if value is None else function(value) for value in _values(self)]
        return TokenBatch(*values)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The batch on another device; the copy does not wait for the device."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    def __getitem__(self, rows: slice | Tensor) -> TokenBatch:
        return self.map(lambda value: value[rows])


def only_prompts(batch: TokenBatch, pad: int) -> TokenBatch:
    """The prompts of a batch alone, filled up on the left with ``pad``, as a network takes them to generate from.

    A prompt reaches to the first position that is learnt; a row in which nothing is learnt is a prompt as a whole, and one
    that is learnt from its start gives its first token. labels are all -100. It waits for the device, to learn how long the
    longest prompt is.

    Raises ValueError on packed rows, whose prompts are several.
    """
    if batch.documents is not None or batch.labels.ndim != 2:
        raise ValueError("packed rows and rows with a class have no prompt of their own to generate from.")
    learnt = batch.learnt
    places = torch.arange(batch.tokens.shape[1], device=learnt.device).expand_as(learnt)
    first = torch.where(learnt.any(dim=1), learnt.long().argmax(dim=1), places.shape[1])
    inside = batch.attention & (places <= first[:, None])
    counts = inside.sum(dim=1)
    width = max(1, int(counts.max()))
    # A stable sort brings what is inside to the right end and keeps its order.
    order = inside.long().argsort(dim=1, stable=True)[:, -width:]
    attention = inside.gather(1, order)
    tokens = batch.tokens.gather(1, order).masked_fill(~attention, pad)
    positions = batch.positions.gather(1, order).masked_fill(~attention, 0)
    return TokenBatch(tokens, attention, positions, torch.full_like(tokens, IGNORED), batch.index)


_NAMES = tuple(part.name for part in fields(TokenBatch))


def _values(batch: TokenBatch) -> list[Tensor | None]:
    return [getattr(batch, name) for name in _NAMES]


pytree.register_pytree_node(TokenBatch, lambda batch: (_values(batch), None), lambda values, _: TokenBatch(*values))

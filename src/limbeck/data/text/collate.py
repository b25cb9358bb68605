"""Rows of a split to a batch: filled up on one side, or several examples in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from limbeck.data.text.tokens import TokenSplit
from limbeck.signals import IGNORED, Batch
from limbeck.tokens import Tokens

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Collate:
    """Makes batches of a split's rows.

    side: where rows are filled up. packed: whether a batch's index has a row for each packed row.
    """

    split: TokenSplit
    side: Side = "right"
    packed: bool = False

    def __call__(self, rows: Sequence[Sequence[int]]) -> Batch:
        """A batch from the positions in the split of the examples in each of its rows; one each where nothing is packed."""
        split, sides = self.split, [[*row] for row in rows]
        examples = torch.tensor([place for row in sides for place in row])
        lengths = split.lengths[examples]
        row_of = torch.repeat_interleave(torch.arange(len(sides)), torch.tensor([len(row) for row in sides]))
        used = torch.zeros(len(sides), dtype=torch.int64).index_add_(0, row_of, lengths)
        within = _running(lengths)
        example_of = torch.repeat_interleave(torch.arange(len(examples)), lengths)
        source = (split.ends[examples] - lengths)[example_of] + within
        flat_row = row_of[example_of]
        column = torch.arange(len(source)) - (used.cumsum(0) - used)[flat_row]
        width = int(used.max())
        if self.side == "left":
            column += width - used[flat_row]
        place = (flat_row, column)
        tokens = _filled((len(sides), width), split.special.pad, place, split.tokens[source].long())
        attention = _filled(tokens.shape, False, place, torch.ones_like(source, dtype=torch.bool))
        positions = _filled(tokens.shape, 0, place, within)
        inputs = Tokens(
            tokens=tokens,
            attention=attention,
            positions=positions,
            documents=self._documents(tokens.shape, place, sides, example_of) if self.packed else None,
            types=None if split.types is None else _filled(tokens.shape, 0, place, split.types[source].long()),
        )
        labels = self._labels(tokens.shape, place, source, within, examples, example_of)
        return Batch(inputs, labels, self._index(sides))

    def _labels(
        self,
        shape: torch.Size,
        place: tuple[Tensor, Tensor],
        source: Tensor,
        within: Tensor,
        examples: Tensor,
        example_of: Tensor,
    ) -> Tensor:
        split = self.split
        if split.labels is not None:
            return split.labels[examples]
        following = split.tokens[(source + 1).clamp(max=len(split.tokens) - 1)].long()
        # The last token of a prompt predicts the first of the completion; the last of an example predicts nothing.
        learnt = (within + 1 >= split.prompts[examples][example_of]) & (
            within + 1 < split.lengths[examples][example_of]
        )
        return _filled(shape, IGNORED, place, following.where(learnt, IGNORED))

    def _index(self, rows: Sequence[Sequence[int]]) -> Tensor:
        if not self.packed:
            return self.split.index[torch.tensor([row[0] for row in rows])]
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
        return torch.where(padded < 0, -1, self.split.index[padded.clamp(min=0)])

    @staticmethod
    def _documents(
        shape: torch.Size, place: tuple[Tensor, Tensor], rows: Sequence[Sequence[int]], example_of: Tensor
    ) -> Tensor:
        number = torch.tensor([number for row in rows for number in range(len(row))])
        return _filled(shape, -1, place, number[example_of])


def _running(lengths: Tensor) -> Tensor:
    """0, 1, … up to each length, one after the other."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - lengths, lengths)


def _filled(
    shape: torch.Size | tuple[int, int], fill: int | bool, place: tuple[Tensor, Tensor], values: Tensor
) -> Tensor:
    found = torch.full(tuple(shape), fill, dtype=values.dtype)
    found[place] = values
    return found

"""Which rows make which batch: a pure function of the seed and the epoch, with as many batches in every epoch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from limbeck.data.seeds import stream

_GROWTH, _LEAST = 1.12, 8
"""Lengths of a group differ by this factor at most, or by so many tokens where that is more: the first so that little of a
batch is filled up, the second so that short rows are not sorted by every token and the same ones meet in every epoch."""


@dataclass(frozen=True)
class Plan:
    """Batches of rows whose lengths are known.

    lengths: (N,) int64 tokens of each row. batch_size: rows of a batch, or None with ``token_budget``, the most tokens of
    a batch with what it is filled up with. multiple: rows of every batch are a multiple of it. grouped: whether rows of
    similar length come together. drop_last: whether a last batch that is not full is left out.

    Rows are put into groups of similar length, shuffled within their group, and cut into batches from the shortest group to
    the longest; what is left of a group opens the next one. Then the batches are shuffled. Since the lengths are the same
    in every epoch, so are the sizes of the batches.
    """

    lengths: Tensor
    seed: int
    batch_size: int | None = None
    token_budget: int | None = None
    multiple: int = 1
    grouped: bool = True
    drop_last: bool = False

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each batch, in the order in which they are cut."""
        found: list[int] = []
        waiting = 0
        for count, longest in self._groups:
            size, waiting = self._most(longest), waiting + count
            full, waiting = divmod(waiting, size)
            found += [size] * full
        rest = waiting - waiting % self.multiple
        if rest and not self.drop_last:
            found.append(rest)
        return found

    def epoch(self, number: int) -> list[Tensor]:
        """For each batch of an epoch the positions of its rows, (rows,) int64."""
        order = torch.randperm(len(self.lengths), generator=stream(self.seed, number, 0))
        if self.grouped:
            order = order[self._group_of[order].argsort(stable=True)]
        batches = order[: sum(self.sizes)].split(self.sizes)
        turn = torch.randperm(len(batches), generator=stream(self.seed, number, 1))
        return [batches[place] for place in turn.tolist()]

    @cached_property
    def _group_of(self) -> Tensor:
        """(N,) int64, which group each row is of."""
        edges, longest = [1], int(self.lengths.max())
        while edges[-1] <= longest:
            edges.append(max(edges[-1] + _LEAST, int(edges[-1] * _GROWTH)))
        return torch.bucketize(self.lengths, torch.tensor(edges), right=True)

    @cached_property
    def _groups(self) -> list[tuple[int, int]]:
        """(rows, longest) of each group, from the shortest to the longest."""
        if not self.grouped:
            return [(len(self.lengths), int(self.lengths.max()))]
        parts = [self.lengths[self._group_of == group] for group in self._group_of.unique().tolist()]
        return [(len(part), int(part.max())) for part in parts]

    def _most(self, longest: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        assert self.token_budget is not None
        return self.token_budget // longest // self.multiple * self.multiple


@dataclass(frozen=True)
class Packing:
    """Which examples share a row of at most ``capacity`` tokens.

    The longest example that is left goes into the row with the least room that is enough for it (best fit, decreasing).
    What fits where follows from the lengths alone; which of the examples of one length takes a place is drawn anew each
    epoch, and rows are as many in every epoch.
    """

    lengths: Tensor
    capacity: int
    seed: int

    @cached_property
    def _places(self) -> list[list[int]]:
        """For each row, which of the examples sorted by length, the longest first, are in it."""
        rows: list[list[int]] = []
        with_room: dict[int, list[int]] = {}
        rooms: list[int] = []
        for place, length in enumerate(self.lengths.sort(descending=True).values.tolist()):
            at = bisect_left(rooms, length)
            if at == len(rooms):
                row, room = len(rows), self.capacity
                rows.append([])
            else:
                room = rooms[at]
                row = with_room[room].pop()
                if not with_room[room]:
                    del with_room[room], rooms[at]
            rows[row].append(place)
            left = room - length
            if left not in with_room:
                insort(rooms, left)
            with_room.setdefault(left, []).append(row)
        return rows

    @cached_property
    def row_lengths(self) -> Tensor:
        """(R,) int64 tokens of each row; the same in every epoch."""
        by_length = self.lengths.sort(descending=True).values
        return torch.stack([by_length[row].sum() for row in self._places])

    def epoch(self, number: int) -> list[Sequence[int]]:
        """For each row the positions of its examples."""
        order = torch.randperm(len(self.lengths), generator=stream(self.seed, number, 2))
        order = order[self.lengths[order].argsort(stable=True, descending=True)]
        places = order.tolist()
        return [[places[place] for place in row] for row in self._places]

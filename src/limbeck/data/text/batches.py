"""Batches of tokens: what an epoch's batches are depends only on the seed and the number of the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.text.collate import Collate, Side
from limbeck.data.text.mixup import TextViews, side_by_side
from limbeck.data.text.only_prompts import only_prompts
from limbeck.data.text.plan import Packing, Plan
from limbeck.data.text.tokens import TokenSplit
from limbeck.errors import SettingError, check_choice, check_whole
from limbeck.signals import Batch


class TokenBatches:
    """Training batches of tokens; as ``signals.Batches``; the inputs are ``Tokens``.

    split: its rows. batch_size: rows of a global batch, a multiple of ``world_size``. token_budget: instead of it, the most
    tokens of a global batch with what its rows are filled up with; its rows are a multiple of ``world_size``. Process
    ``rank`` gets its contiguous part of each global batch.
    side: where rows are filled up. grouped: whether rows of similar length come together; without, any do.
    packing: tokens of a row into which several examples are put that do not see each other; None for one example a row.
    views: each text is in a batch in one view of each of these; plain when not given. batch_size and token_budget are of the
    texts, not of their views.
    drop_last: whether a batch that is not full is left out. Without, an epoch sees every row but the last few that the
    processes cannot share equally, fewer than ``world_size`` of them.

    An epoch has the same number of batches every time. Raises SettingError where the settings do not fit.
    """

    def __init__(
        self,
        split: TokenSplit,
        seed: int,
        *,
        batch_size: int | None = None,
        token_budget: int | None = None,
        side: Side = "right",
        grouped: bool = True,
        packing: int | None = None,
        views: TextViews | None = None,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_share(rank, world_size)
        check_choice("side", side, ("left", "right"))
        self._share, self._device = (rank, world_size), torch.device(device)
        self._seed, self._views = seed, views
        if views is not None and (split.labels is None or side != "right"):
            raise SettingError(
                "augment: several views of a text, and mixup, are for texts that are classified, filled up on the right."
            )
        self._packing = None if packing is None else Packing(split.lengths, _capacity(split, packing), seed)
        self._collate = Collate(split, side, packed=packing is not None)
        lengths = split.lengths if self._packing is None else self._packing.row_lengths
        _check_size(batch_size, token_budget, int(lengths.max()), world_size)
        self._plan = Plan(lengths, seed, batch_size, token_budget, world_size, grouped, drop_last)
        if not self._plan.sizes:
            raise SettingError(
                f"batch_size={batch_size or token_budget} leaves no batch of the {len(lengths)} rows; give less, or "
                "drop_last=False."
            )

    @property
    def batch_size(self) -> int:
        """Rows of a global batch over all processes; the mean where a token budget decides."""
        return self._plan.batch_size or round(sum(self._plan.sizes) / len(self._plan.sizes))

    def __len__(self) -> int:
        return len(self._plan.sizes)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """See ``signals.Batches.epoch``."""
        if not 0 <= start <= len(self):
            raise SettingError(f"start must be 0 to {len(self)}, the batches of an epoch; got {start}.")
        packed = None if self._packing is None else self._packing.epoch(number)
        rank, world_size = self._share
        for position, rows in enumerate(self._plan.epoch(number)[start:], start):
            share = len(rows) // world_size
            part = slice(rank * share, (rank + 1) * share)
            mine = rows[part].tolist()
            batch = self._collate([[row] for row in mine] if packed is None else [packed[row] for row in mine])
            yield (batch if self._views is None else self._viewed(batch, rows, part, number, position)).to(self._device)

    def _viewed(self, batch: Batch, rows: Tensor, part: slice, epoch: int, position: int) -> Batch:
        assert self._views is not None
        mixed = [
            None
            if drawn is None
            else (self._collate([[row] for row in rows[drawn.other][part].tolist()]), drawn.share[part])
            for drawn in self._views.draw(len(rows), self._seed, epoch, position)
        ]
        return side_by_side(batch, mixed, self._collate.split.special.pad)


@dataclass(frozen=True)
class EvalTokenBatches:
    """The rows of a split once, without shuffling; can be walked again.

    batch_size: of this process. Each process takes its part, and the parts of all cover every row once.
    by_length: from the longest row to the shortest, so that little is filled up and a memory that is too small shows at
    once, every ``world_size``-th row to each process; else in the order of the split, a contiguous part to each.
    side: where rows are filled up. prompts: whether to give the prompts alone, filled up on the left, to generate from.

    Raises SettingError where the settings do not fit.
    """

    split: TokenSplit
    batch_size: int
    side: Side = "right"
    prompts: bool = False
    by_length: bool = True
    device: torch.device | str = "cpu"
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, low=1)
        check_choice("side", self.side, ("left", "right"))
        _check_share(self.rank, self.world_size)
        if self.prompts and self.split.labels is not None:
            raise SettingError("rows with a class have no prompts to generate from.")
        if self.prompts and (bare := (self.split.prompts == 0).nonzero()).numel():
            index = int(self.split.index[bare[0, 0]])
            raise SettingError(f"example {index} has no prompt to generate from; tokenise with prompts_only=True.")

    def _parts(self) -> list[Sequence[int]]:
        lengths = self.split.prompts if self.prompts else self.split.lengths
        order = lengths.argsort(descending=True, stable=True) if self.by_length else torch.arange(len(lengths))
        mine = order[self.rank :: self.world_size] if self.by_length else order.tensor_split(self.world_size)[self.rank]
        return [part.tolist() for part in mine.split(self.batch_size) if len(part)]

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[Batch]:
        collate = Collate(self.split, self.side)
        for part in self._parts():
            batch = collate([[place] for place in part])
            yield (only_prompts(batch, self.split.special.pad) if self.prompts else batch).to(self.device)


def _check_share(rank: int, world_size: int) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise SettingError(f"rank must be 0 to world_size - 1, got rank={rank}, world_size={world_size}.")


def _check_size(batch_size: int | None, token_budget: int | None, longest: int, world_size: int) -> None:
    if (batch_size is None) == (token_budget is None):
        raise SettingError("give either batch_size, the rows of a batch, or token_budget, its tokens.")
    if batch_size is not None:
        check_whole("batch_size", batch_size, low=1)
        if batch_size % world_size:
            raise SettingError(
                f"batch_size must be divisible by the number of processes ({world_size}), got {batch_size}."
            )
    if token_budget is not None:
        check_whole("token_budget", token_budget, low=1)
        if token_budget < longest * world_size:
            raise SettingError(
                f"token_budget={token_budget} is less than a row of the longest, {longest} tokens, for each of the "
                f"{world_size} processes; give at least {longest * world_size}."
            )


def _capacity(split: TokenSplit, packing: int) -> int:
    check_whole("packing", packing, low=1)
    if split.labels is not None:
        raise SettingError("packing puts several examples into a row, and a row with a class can have one only.")
    longest = int(split.lengths.max())
    if packing < longest:
        raise SettingError(f"packing={packing} is less than the longest example, {longest} tokens; give at least that.")
    return packing

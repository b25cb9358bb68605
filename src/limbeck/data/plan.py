"""What an epoch shows: which samples make which batch of which process, and in which views.

Both depend only on the seed and the number of the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from limbeck.data.seeds import stream
from limbeck.data.slots import Slots, all_views, fixed_views
from limbeck.errors import SettingError


@dataclass(frozen=True)
class Plan:
    """Which samples make which batch, and which of them are this process's.

    Each process gets one contiguous part of every global batch. A last batch that is not full is dropped with
    ``drop_last``; without, it keeps a multiple of ``world_size`` samples, so that all processes have equally many.
    """

    samples: int
    batch_size: int
    seed: int
    rank: int
    world_size: int
    drop_last: bool

    def __post_init__(self) -> None:
        check_share(self.batch_size, self.rank, self.world_size)
        if self.batch_size % self.world_size:
            raise SettingError(
                f"batch_size must be divisible by the number of processes ({self.world_size}), got {self.batch_size}."
            )
        if len(self) == 0:
            raise SettingError(
                f"batch_size={self.batch_size} is larger than the {self.samples} training images, so that an epoch "
                f"would have no batch; give at most {self.samples}, or drop_last=False."
            )

    def __len__(self) -> int:
        rest = self.samples % self.batch_size
        return self.samples // self.batch_size + (not self.drop_last and rest >= self.world_size)

    def order(self, epoch: int) -> Tensor:
        """Positions (N,) int64 in the order of an epoch."""
        return torch.randperm(self.samples, generator=stream(self.seed, epoch, 0))

    def ids(self, epoch: int) -> torch.Generator:
        """The generator of an epoch's view ids."""
        return stream(self.seed, epoch, 1)

    def part(self, position: int) -> slice:
        """This process's part of the global batch at ``position``, as a slice of the epoch's order."""
        begin = position * self.batch_size
        share = min(self.batch_size, self.samples - begin) // self.world_size
        return slice(begin + self.rank * share, begin + (self.rank + 1) * share)

    def positions(self, start: int) -> range:
        """Batch numbers from ``start`` on. Raises SettingError when it is outside the epoch."""
        if not 0 <= start <= len(self):
            raise SettingError(f"start must be 0 to {len(self)}, the batches of an epoch; got {start}.")
        return range(start, len(self))


def check_share(batch_size: int, rank: int, world_size: int) -> None:
    if type(batch_size) is not int or batch_size < 1:
        raise SettingError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    if world_size < 1 or not 0 <= rank < world_size:
        raise SettingError(f"rank must be 0 to world_size - 1, got rank={rank}, world_size={world_size}.")


class Seen:
    """Which views of its samples an epoch shows, one of each set: drawn anew, or the next of ``cycle`` fixed ones."""

    def __init__(self, samples: int, counts: Sequence[int], cycle: int | None, text: str) -> None:
        self.counts, self._cycle, self._text = counts, cycle, text
        self.firsts = list(accumulate(counts[:-1], initial=0))
        self._fixed: list[Tensor] = []
        if cycle is not None:
            self._fixed = [fixed_views(samples, count, cycle, number) for number, count in enumerate(counts)]

    def ids(self, epoch: int, order: Tensor, generator: torch.Generator) -> list[Tensor]:
        """For each set, ids (N,) int64 of the views of the samples in ``order``."""
        if self._cycle is None:
            return [torch.randint(count, (len(order),), generator=generator) for count in self.counts]
        return [fixed[order, epoch % fixed.shape[1]] for fixed in self._fixed]

    @cached_property
    def slots(self) -> Slots:
        """All views that a sample is ever seen in; the ids of a set go on where those of the one before it end."""
        if self._cycle is None:
            return all_views(self.counts, self._text)
        ids = torch.cat([fixed + first for fixed, first in zip(self._fixed, self.firsts, strict=True)], 1)
        return Slots(ids, f"{self._text}, {self._cycle} fixed views of each sample")

    def set_of(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """For ids that go on from set to set: the number of the set, and the id in it."""
        firsts = torch.tensor(self.firsts)
        number = torch.searchsorted(firsts, views, right=True) - 1
        return number, views - firsts[number]

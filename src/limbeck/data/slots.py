"""The views in which each sample is ever seen, by number, so that a teacher's answer to each can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.seeds import stream
from limbeck.errors import SettingError, check_whole

# Of one sample: a teacher's answers to more views than these are not worth storing.
_MOST_SLOTS = 4096
_FIXED_STREAM = 0x56696577


@dataclass(frozen=True)
class Slots:
    """The views in which each of N samples is ever seen, numbered 0 … S − 1: slot s of sample i is the view ``ids[i, s]``.

    ids: int64 (N, S) on the CPU, or (1, S) when all samples are seen in the same; no sample has an id twice.
    text: the augmentations, and how many views of each sample there are, in words.
    """

    ids: Tensor
    text: str

    def __len__(self) -> int:
        return self.ids.shape[1]

    def views_of(self, positions: Tensor, slots: Tensor) -> Tensor:
        """Ids (B,) int64 of the views in ``slots`` of the samples at ``positions``, both int64 (B,)."""
        return self.ids[positions if len(self.ids) > 1 else torch.zeros_like(positions), slots]


def all_views(counts: Sequence[int], text: str) -> Slots:
    """Slots where every sample is seen in every view: the slot is the id. counts: the views of each set.

    Raises SettingError when they are more than 4,096.
    """
    if sum(counts) > _MOST_SLOTS:
        raise SettingError(
            f"the views '{text}' are {sum(counts):,} in number, too many to store an answer to each; "
            f"give the number of views that each sample cycles through (--views 16), or augment less."
        )
    return Slots(torch.arange(sum(counts)).unsqueeze(0), f"{text}, all {sum(counts)} views")


def fixed_views(samples: int, count: int, cycle: int, number: int) -> Tensor:
    """(samples, min(cycle, count)) int64: for each sample so many different ids in [0, count), in random order.

    They depend on ``cycle`` and ``number``, that of the view set, and on no run's seed. Raises SettingError when cycle is
    no whole number of at least 1.
    """
    check_whole("cycle", cycle, low=1)
    generator, kept = stream(_FIXED_STREAM, cycle, number), min(cycle, count)
    ids = torch.empty(samples, kept, dtype=torch.int64)
    # Floyd's way to draw without putting back: one more candidate each time, itself taken where its draw is taken.
    for slot, last in enumerate(range(count - kept, count)):
        drawn = torch.randint(last + 1, (samples,), generator=generator)
        taken = (ids[:, :slot] == drawn.unsqueeze(1)).any(1)
        ids[:, slot] = torch.where(taken, last, drawn)
    return ids.gather(1, torch.rand(samples, kept, generator=generator).argsort(1))

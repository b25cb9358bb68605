"""Random numbers that are a function of where they are used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from limbeck.errors import check_number, check_whole


class Stream(IntEnum):
    """What a random number is for. Streams are independent of one another."""

    STUDENT = 0
    TEACHER = 1
    COIN = 2


@dataclass(frozen=True)
class Draw:
    """The randomness of one call: uniform numbers in [0, 1) that depend on (seed, step, stream, row, position) alone.

    There is no state. A run that is resumed at a step draws what the run that was not interrupted drew, and a row draws the
    same in any batch, at any place of it and on any device. That is also why the text of ``speculative`` does not depend on
    its block.

    Args:
        seed: of the run.
        step: of the optimiser; a text that is written again at another step is another one.
        progress: how much of the training is over, in [0, 1]; only ``two_stage`` asks. None where that is not known.
        level: how deep a coin lies inside another policy; set by policies.

    Raises:
        SettingError: a value out of its range.
    """

    seed: int
    step: int = 0
    progress: float | None = None
    level: int = 0

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, low=0)
        check_whole("step", self.step, low=0)
        if self.progress is not None:
            check_number("progress", self.progress, low=0, high=1)

    def uniforms(self, stream: Stream, rows: Tensor, positions: int) -> Tensor:
        """(N, positions) float64 on the CPU, a line for each of ``rows``, which are (N,) int64 names of samples.

        53 bits of splitmix64, chained over the numbers that name the place. Computed in whole numbers, so they are the same
        on every machine.
        """
        state = torch.full((1, 1), 0x6C696D)
        for value in (self.seed, self.step, int(stream), self.level if stream is Stream.COIN else 0):
            state = _absorb(state, torch.tensor(value - 2**64 if value >= 2**63 else value))
        state = _absorb(state, rows.cpu()[:, None])
        state = _absorb(state, torch.arange(positions)[None, :])
        return _shifted(state, 11).double() * 2.0**-53

    def seeds(self, stream: Stream, rows: Tensor) -> list[int]:
        """A whole number below 2³¹ for each of ``rows``, for generators of others."""
        return (self.uniforms(stream, rows, 1).squeeze(1) * 2**31).long().tolist()

    def deeper(self) -> Draw:
        """The same, with coins of its own."""
        return replace(self, level=self.level + 1)


def _absorb(state: Tensor, value: Tensor) -> Tensor:
    # int64 products and sums wrap around, which is what splitmix64 asks of unsigned ones.
    state = state + value - 0x61C8864680B583EB
    state = (state ^ _shifted(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ _shifted(state, 27)) * -0x6B2FB644ECCEEE15
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; that of int64 would draw the sign along."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)

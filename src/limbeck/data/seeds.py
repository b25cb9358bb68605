"""Random streams that depend only on the integers they are named by, never on a global state."""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1


def mix(*values: int) -> int:
    """One integer in [0, 2⁶³) from several: splitmix64 chained over them, so that near inputs give unrelated seeds."""
    state = 0x6C696D6265636B
    for value in values:
        state = (state + (value & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def stream(*values: int) -> torch.Generator:
    """A CPU generator seeded from ``values``."""
    return torch.Generator().manual_seed(mix(*values))

"""Ranks of the numbers in a row, exact and differentiable, and Spearman's correlation of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from limbeck.losses.correlation import correlation_distance, unit_deviations
from limbeck.losses.precision import in_float32

# Numbers compared at a time: 16 MB of float32, whatever the number of classes.
_COMPARED = 2**22


class _SoftRanks(torch.autograd.Function):
    """A sum over all pairs that is taken piece by piece, forward and backward, so that no (N, M, M) tensor is kept."""

    @staticmethod
    def forward(context: Any, values: Tensor, sharpness: float) -> Tensor:
        context.save_for_backward(values)
        context.sharpness = sharpness
        above = [torch.sigmoid(sharpness * gaps).sum(dim=2) for gaps in _gaps(values)]
        return torch.cat(above, dim=1) + 0.5

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (values,) = gradients, context.saved_tensors
        parts = []
        # The slope of a pair is the same from both sides, so each number gets that of the difference of their gradients.
        for gaps, pulls in zip(_gaps(values), _gaps(gradient), strict=True):
            sure = torch.sigmoid(context.sharpness * gaps)
            parts.append((sure * (1 - sure) * pulls).sum(dim=2))
        return context.sharpness * torch.cat(parts, dim=1), None


def _gaps(values: Tensor) -> Iterator[Tensor]:
    """(N, m, M) differences of m numbers of each row (N, M) and all of the row, for one piece of the row after another."""
    count = values.shape[1]
    size = max(1, _COMPARED // max(1, values.numel()))
    for begin in range(0, count, size):
        yield values[:, begin : begin + size, None] - values[:, None, :]


@in_float32
def soft_ranks(values: Tensor, *, sharpness: float) -> Tensor:
    """(N, M) ranks of the numbers in each row (N, M), from 1 for the least: r_i = 1 + Σ_{j ≠ i} σ(sharpness·(x_i - x_j)).

    The pairwise sigmoids of Qin, Liu and Li, "A general approximation framework for direct optimization of information
    retrieval measures" (Information Retrieval, 2010). As the sharpness grows they become the exact ranks, with equal numbers
    sharing the mean of theirs. Ranks sum to M(M + 1)/2 at any sharpness. Takes time in N·M² and memory in N·M: pairs are
    compared piece by piece, some 16 MB at a time, and again in the backward pass.
    """
    found: Tensor = _SoftRanks.apply(values, sharpness)
    return found


def hard_ranks(values: Tensor) -> Tensor:
    """(N, M) int64 ranks of the numbers in each row (N, M), from 1 for the least; of equal numbers the first is the lesser.

    No gradient passes through them.
    """
    return values.argsort(dim=1, stable=True).argsort(dim=1) + 1


@in_float32
def spearman_distance(one: Tensor, other: Tensor, *, sharpness: float | None) -> Tensor:
    """(N,) 1 less Spearman's correlation of the rows of two (N, M) tensors: Pearson's of their ranks.

    With a sharpness the ranks are soft ones of each row less its mean, over its standard deviation: an increasing linear
    function of a row changes nothing. Where a row is constant the distance is 1 and gives no gradient. With None they are
    the hard ranks, and there is no gradient at all.
    """
    ours, theirs = (_ranks(rows, sharpness) for rows in (one, other))
    return correlation_distance(ours, theirs)


def _ranks(rows: Tensor, sharpness: float | None) -> Tensor:
    if sharpness is None:
        return hard_ranks(rows).to(rows.dtype)
    deviations, _ = unit_deviations(rows)
    return soft_ranks(deviations * math.sqrt(rows.shape[1]), sharpness=sharpness)

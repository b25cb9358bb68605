"""How far rows are from pointing the same way: cosines, and Pearson's correlations."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.precision import in_float32


@in_float32
def correlation_distance(one: Tensor, other: Tensor) -> Tensor:
    """(N,) 1 less the Pearson correlation of the rows of two (N, M) tensors; 1, without a gradient, where one is constant.

    Constant means: to the rounding of the numbers.
    """
    (ours, ours_vary), (theirs, theirs_vary) = unit_deviations(one), unit_deviations(other)
    # For unit vectors half the squared distance is 1 less the product, without the rounding near 0.
    constant = 1 - (ours_vary.to(ours.dtype) + theirs_vary.to(ours.dtype)) / 2
    return (ours - theirs).square().sum(dim=1) / 2 + constant


@in_float32
def unit_deviations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, M) rows less their mean, of unit length, and (N,) bool whether they vary; those that do not are 0."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    squares = centred.square().sum(dim=1, keepdim=True)
    # Below this the deviations are what rounding left of equal numbers, and would be blown up to noise of unit length.
    rounding = (4 * torch.finfo(rows.dtype).eps) ** 2 * rows.detach().square().sum(dim=1, keepdim=True)
    varies = squares.detach() > rounding
    return torch.where(varies, centred * squares.where(varies, 1.0).rsqrt(), 0.0), varies.squeeze(1)


@in_float32
def scaled_exp(rows: Tensor) -> Tensor:
    """exp of (N, M) logarithms over the greatest of their row: neither correlation nor cosine minds, and nothing underflows.

    No gradient passes through the greatest.
    """
    return (rows - rows.detach().amax(dim=1, keepdim=True)).exp()


@in_float32
def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """(N,) 1 less the cosine of the rows of two (N, M) tensors, none of which is zero."""
    ours, theirs = (rows * rows.square().sum(dim=1, keepdim=True).rsqrt() for rows in (one, other))
    return (ours - theirs).square().sum(dim=1) / 2

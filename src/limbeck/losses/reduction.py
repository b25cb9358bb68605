"""Means over samples and positions."""

from __future__ import annotations

from torch import Tensor

from limbeck.losses.precision import in_float32


def mean(values: Tensor, *, weight: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Scalar mean of per-sample (B,) or per-position (B, L) values.

    ``mask`` (same shape, bool): the mean runs over the True places only; all False gives 0. ``weight`` (B,): each
    sample's values are multiplied by its weight; the divisor stays the number of samples (or of True places), so that
    micro-batches and ranks average to the same number as the whole batch.
    """
    if weight is not None:
        values = values * weight.reshape(-1, *[1] * (values.ndim - 1))
    if mask is None:
        return values.mean()
    # where, not a product: a masked place may hold inf or NaN.
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)


@in_float32
def squared_error(one: Tensor, other: Tensor) -> Tensor:
    """(B,) mean of the squared differences of two (B, …) tensors over all that a sample has."""
    return (one - other).square().flatten(1).mean(dim=1)

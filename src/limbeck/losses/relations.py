"""How alike the samples of a batch are: kernels of (N, D) rows as (N, N) matrices, and the distance between two of them."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.precision import in_float32

_TINY_LENGTH = 1e-7
# Under the root, so that the distance of two samples that coincide has a slope.
_TINY_SQUARE = 1e-6


@in_float32
def squared_distances(rows: Tensor, *, exact: bool = True) -> Tensor:
    """(N, N) squared Euclidean distances of (N, D) rows.

    ``exact``: the values are those of the differences, also for samples that are close; else of inner products, which is
    ten times as fast for long rows and right to about 1e-7 of the largest squared row (1e-3 in TF32), so that it may be
    below zero.
    """
    # Distances do not depend on the mean; inner products lose fewer digits without it.
    rows = rows - rows.mean(dim=0)
    products = rows @ rows.T
    squares = products.diagonal()
    squared = squares[:, None] + squares[None, :] - 2 * products
    if not exact:
        return squared
    # The inner products give the gradient at the price of three matrix products, but of close samples they give rounding,
    # more so in TF32; the values are those of the differences.
    values = torch.cdist(rows.detach(), rows.detach(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return squared + (values - squared).detach()


@in_float32
def cosine_kernel(rows: Tensor) -> Tensor:
    """(N, N) cosines of (N, D) rows, brought to [0, 1]. A row of zeros is orthogonal to all and gets no gradient."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    unit = rows / (lengths.masked_fill(lengths == 0, torch.inf) + _TINY_LENGTH)
    # The cosine of two opposite samples may be rounded to less than -1, and a logarithm then be one of a negative number.
    similarities: Tensor = ((unit @ unit.T + 1) / 2).clamp(min=0.0)
    return similarities


@in_float32
def student_t_kernel(rows: Tensor) -> Tensor:
    """(N, N) values 1/(1 + distance) of (N, D) rows, in (0, 1]: Student's t of degree 1 with the plain distance."""
    distances = (squared_distances(rows, exact=False).clamp(min=0.0) + _TINY_SQUARE).sqrt()
    return (1 + distances).reciprocal()


@in_float32
def jeffreys(one: Tensor, other: Tensor, *, itself: bool = False) -> Tensor:
    """(N,) Σ_j (p - q)(log p - log q) of each row's probabilities p and q of the other samples.

    ``one`` and ``other`` are (N, N) kernels of positive values; a row divided by its sum is p, or q. ``itself`` says whether
    a sample counts among its others. Symmetric in the two, never negative, and zero only for equal probabilities.
    """
    own = torch.eye(len(one), dtype=torch.bool, device=one.device) & (not itself)
    log_p, log_q = (
        kernel.log() - kernel.masked_fill(own, 0.0).sum(dim=1, keepdim=True).log() for kernel in (one, other)
    )
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).masked_fill(own, 0.0).sum(dim=1)

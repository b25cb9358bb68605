"""Differences between two groups of a batch's samples, over all tuples of samples or over drawn ones.

A tuple is n different samples in an order; its first n - ⌊n/2⌋ are one group, the others the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.precision import in_float32

_BITS = 32
_MASK = 2**_BITS - 1


def group_sizes(n: int) -> tuple[int, int]:
    """Sizes of the two groups of a tuple."""
    return n - n // 2, n // 2


def all_tuples(samples: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """(samples!/(samples - n)!, n) int64: every tuple of n different numbers in [0, samples), once."""
    numbers = [torch.arange(samples - place, device=device) for place in range(n)]
    return _distinct(torch.cartesian_prod(*numbers))


def drawn_tuples(samples: int, n: int, count: int, seed: Tensor, step: Tensor) -> Tensor:
    """(count, n) int64: tuples of n different numbers in [0, samples), each equally likely, with repetition.

    ``seed`` and ``step`` are int64 () tensors in [0, 2³²), which are not read on the host. The numbers follow from them alone:
    they are a hash of a counter, the same on every device, and no generator is moved. ``samples`` is below 2³¹.
    """
    counter = torch.arange(count * n, device=seed.device)
    bits = _scrambled(_scrambled(counter) ^ _scrambled(_scrambled(seed) ^ step)).view(count, n)
    choices = torch.arange(samples, samples - n, -1, device=seed.device)
    return _distinct((bits * choices) >> _BITS)


def _scrambled(values: Tensor) -> Tensor:
    """A bijection of [0, 2³²) that looks like chance (Mueller's hash of integers); no product leaves int64."""
    for _ in range(2):
        values = (((values >> 16) ^ values) * 0x45D9F3B) & _MASK
    return (values >> 16) ^ values


def _distinct(digits: Tensor) -> Tensor:
    """(P, n) different numbers from digits: the k-th digit counts among the numbers that the ones before it left."""
    columns: list[Tensor] = []
    for number in digits.unbind(1):
        if columns:
            for taken in torch.stack(columns, 1).sort(dim=1).values.unbind(1):
                number = number + (number >= taken)
        columns.append(number)
    return torch.stack(columns, 1)


@in_float32
def group_differences(rows: Tensor, tuples: Tensor) -> Tensor:
    """(V, P, C) mean over the first group less mean over the second, of rows (V, N, C) by tuples (P, n)."""
    first, second = group_sizes(tuples.shape[1])
    signs = [1 / first] * first + [-1 / second] * second
    parts = [sign * rows[:, chosen] for sign, chosen in zip(signs, tuples.unbind(1), strict=True)]
    return torch.stack(parts).sum(dim=0)


@in_float32
def mean_squared_difference(rows: Tensor, n: int, tuples: Tensor | None = None) -> Tensor:
    """Scalar mean square of the differences of groups of rows (V, N, C), over views, tuples and C.

    Over ``tuples`` (P, n), or over all of n samples: the mean square of such a difference is (1/n₁ + 1/n₂) times the unbiased
    variance over the N rows. Memory in V·N·C + N², and n² numbers a tuple: no difference is ever made.
    """
    first, second = group_sizes(n)
    count = rows.shape[1]
    # Differences do not depend on the mean; products lose fewer digits without it.
    rows = rows - rows.mean(dim=1, keepdim=True)
    if tuples is None:
        return rows.square().mean(dim=(0, 2)).sum() / (count - 1) * (1 / first + 1 / second)
    # Σ_p ‖Σ_a s_a e_{p_a}‖² = Σ_ij M_ij ⟨e_i, e_j⟩, where M sums s·sᵀ of the tuples at their samples.
    signs = torch.tensor([second] * first + [-first] * second, dtype=rows.dtype).to(rows.device, non_blocking=True)
    places = (tuples[:, :, None] * count + tuples[:, None, :]).flatten()
    # Whole numbers: their sum is exact in any order, so that an accelerator's is the same each time.
    products = (signs[:, None] * signs).flatten().repeat(len(tuples))
    weights = rows.new_zeros(count * count).index_add(0, places, products).view(count, count)
    squares = (rows * (weights @ rows)).mean(dim=(0, 2)).sum()
    return squares / (len(tuples) * (first * second) ** 2)

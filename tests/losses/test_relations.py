"""Kernels of a batch's samples and the divergence of two of them, against explicit loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limbeck import losses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("exact", [True, False])
def test_squared_distances_are_those_of_the_differences(exact: bool) -> None:
    rows = 100 + draw(7, 5)
    expected = [[math.dist(one, other) ** 2 for other in rows.tolist()] for one in rows.tolist()]
    assert torch.allclose(losses.squared_distances(rows, exact=exact), torch.tensor(expected).double(), atol=1e-5)


def test_exact_distances_of_close_samples_keep_their_digits() -> None:
    rows = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    close = torch.cat([rows, rows[:1] + 1e-4])
    found = losses.squared_distances(close)[0, 2].item()
    assert found == pytest.approx((close[0] - close[2]).double().square().sum().item(), rel=1e-2)


def test_both_ways_have_the_gradient_of_the_distances() -> None:
    rows, weights = draw(6, 4).requires_grad_(), draw(6, 6, seed=1)
    gradients = [
        torch.autograd.grad((losses.squared_distances(rows, exact=exact) * weights).sum(), rows)[0]
        for exact in (True, False)
    ]
    plain = torch.autograd.grad(((rows[:, None] - rows[None]).square().sum(-1) * weights).sum(), rows)[0]
    for gradient in gradients:
        assert torch.allclose(gradient, plain)


def test_kernels_are_one_for_equal_rows_and_lie_between_0_and_1() -> None:
    rows = torch.cat([draw(5, 3), -draw(5, 3)])
    for kernel in (losses.cosine_kernel(rows), losses.student_t_kernel(rows)):
        assert torch.allclose(kernel.diagonal(), torch.ones(10, dtype=torch.float64), atol=2e-3)
        assert kernel.min() >= 0
        assert kernel.max() <= 1 + 1e-12
        assert torch.allclose(kernel, kernel.T)
    assert torch.allclose(losses.cosine_kernel(rows)[:5, 5:].diagonal(), torch.zeros(5, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("itself", [True, False])
def test_jeffreys_is_its_sum(itself: bool) -> None:
    one, other = draw(6, 6).exp(), draw(6, 6, seed=1).exp()
    found = losses.jeffreys(one, other, itself=itself)
    for i in range(6):
        others = [j for j in range(6) if itself or j != i]
        p, q = (torch.stack([kernel[i, j] for j in others]) for kernel in (one, other))
        p, q = p / p.sum(), q / q.sum()
        assert found[i].item() == pytest.approx(((p - q) * (p.log() - q.log())).sum().item(), rel=1e-12)


def test_a_sample_itself_counts_only_where_asked() -> None:
    one, other = draw(4, 4).exp(), draw(4, 4, seed=1).exp()
    changed = one + 5 * torch.eye(4)
    assert torch.allclose(losses.jeffreys(changed, other), losses.jeffreys(one, other))
    assert not torch.allclose(losses.jeffreys(changed, other, itself=True), losses.jeffreys(one, other, itself=True))

"""Soft ranks against loops, exact ranks and scipy's Spearman; their gradient; pieces of a long row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from limbeck import losses
from limbeck.losses import ranking


def rows(seed: int, count: int = 4, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_ranks(values: list[float], sharpness: float) -> list[float]:
    def above(x: float, y: float) -> float:
        return 1 / (1 + math.exp(-sharpness * (x - y)))

    return [1 + sum(above(x, y) for j, y in enumerate(values) if j != i) for i, x in enumerate(values)]


@pytest.mark.parametrize("sharpness", [0.3, 1, 20.0])
def test_soft_ranks_are_the_formula(sharpness: float) -> None:
    found = losses.soft_ranks(rows(0), sharpness=sharpness)
    for row, values in zip(found.tolist(), rows(0).tolist(), strict=True):
        assert row == pytest.approx(slow_ranks(values, sharpness), rel=1e-9)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12), st.floats(0.01, 50))
def test_soft_ranks_sum_to_what_ranks_do_keep_the_order_and_become_exact(values: list[int], sharpness: float) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    count = len(values)
    soft = losses.soft_ranks(row, sharpness=sharpness)[0]
    assert soft.sum().item() == pytest.approx(count * (count + 1) / 2)
    order = row[0].argsort()
    assert (soft[order].diff() >= -1e-9).all()
    # Equal numbers share the mean of their ranks, as scipy has it.
    exact = losses.soft_ranks(row, sharpness=1e3)[0]
    assert exact.tolist() == pytest.approx(rankdata(values).tolist())


def test_hard_ranks_count_from_the_least_and_break_ties_in_order() -> None:
    values = torch.tensor([[3.0, -1.0, 2.0], [5.0, 5.0, 4.0]])
    assert losses.hard_ranks(values).tolist() == [[3, 1, 2], [2, 3, 1]]
    assert losses.hard_ranks(rows(1)).tolist() == [rankdata(row).tolist() for row in rows(1).numpy()]


def exact_distances(one: Tensor, other: Tensor) -> list[float]:
    return [1 - spearmanr(a, b).statistic for a, b in zip(one.numpy(), other.numpy(), strict=True)]


def test_the_distance_comes_to_spearmans_as_the_sharpness_grows() -> None:
    one, other = rows(0, 8, 30), rows(1, 8, 30)
    other = other + 0.7 * one
    expected = torch.tensor(exact_distances(one, other))
    errors = []
    for sharpness in (1, 10, 100, 1000, 1e6):
        found = losses.spearman_distance(one, other, sharpness=sharpness)
        errors.append((found - expected).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.05
    assert errors[-1] < 1e-9
    hard = losses.spearman_distance(one, other, sharpness=None)
    torch.testing.assert_close(hard, expected, rtol=0, atol=1e-12)


def test_ties_are_those_of_spearman() -> None:
    one = torch.tensor([[1.0, 1, 2, 3, 3, 3, 0]], dtype=torch.float64)
    other = torch.tensor([[2.0, 0, 1, 1, 5, 4, 4]], dtype=torch.float64)
    found = losses.spearman_distance(one, other, sharpness=1e6)
    assert found.tolist() == pytest.approx(exact_distances(one, other), abs=1e-12)


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-10, 10))
def test_an_increasing_linear_function_changes_nothing(seed: int, scale: float, offset: float) -> None:
    one, other = rows(seed), rows(seed + 1)
    moved = losses.spearman_distance(scale * one + offset, other, sharpness=10)
    torch.testing.assert_close(moved, losses.spearman_distance(one, other, sharpness=10), rtol=1e-6, atol=1e-9)
    assert (losses.spearman_distance(scale * one + offset, one, sharpness=10).abs() < 1e-9).all()
    assert losses.spearman_distance(-one, one, sharpness=10).tolist() == pytest.approx([2] * 4)


def test_gradients_are_those_of_the_formula() -> None:
    values, other = rows(0).requires_grad_(), rows(1)
    assert torch.autograd.gradcheck(lambda x: losses.soft_ranks(x, sharpness=3), values)
    assert torch.autograd.gradcheck(lambda x: losses.spearman_distance(x, other, sharpness=10), values)


def test_hard_ranks_have_no_gradient() -> None:
    assert not losses.spearman_distance(rows(0).requires_grad_(), rows(1), sharpness=None).requires_grad


def test_equal_numbers_have_no_order_and_no_gradient() -> None:
    equal = torch.full((2, 5), 0.1, requires_grad=True)
    distance = losses.spearman_distance(equal, rows(0, 2, 5).float(), sharpness=10)
    (gradient,) = torch.autograd.grad(distance.sum(), equal)
    assert distance.tolist() == [1, 1]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("compared", [1, 50, 10**6])
def test_pieces_are_the_whole(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = rows(0, 3, 17).requires_grad_(), rows(1, 3, 17)
    gaps = (values[:, :, None] - values[:, None, :]) * 5
    plain = gaps.sigmoid().sum(2) + 0.5
    (expected,) = torch.autograd.grad((plain * weights).sum(), values)
    monkeypatch.setattr(ranking, "_COMPARED", compared)
    found = losses.soft_ranks(values, sharpness=5)
    (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(gradient, expected)


def test_a_thousand_classes_keep_no_pair_in_memory() -> None:
    kept: list[int] = []
    values = torch.randn(16, 1000, requires_grad=True)

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    largest = 0
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = losses.soft_ranks(values, sharpness=10)
    for gaps in ranking._gaps(values.detach()):
        largest = max(largest, gaps.numel())
    assert largest <= ranking._COMPARED
    assert sum(kept) == values.numel()
    (gradient,) = torch.autograd.grad(found.square().sum(), values)
    assert gradient.isfinite().all()
    # Ranks sum to the same whatever the numbers are, so moving all of a row moves none.
    assert found.sum(1).tolist() == pytest.approx([1000 * 1001 / 2] * 16)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(half: torch.dtype) -> None:
    one, other = rows(0).to(half), rows(1).to(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.spearman_distance(one, other, sharpness=10)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, losses.spearman_distance(one.float(), other.float(), sharpness=10))

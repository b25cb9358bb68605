"""Distances by cosine and by correlation against explicit sums, and the rows that have neither."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limbeck import losses


def rows(seed: int) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def centred(values: list[float]) -> list[float]:
    return [value - sum(values) / len(values) for value in values]


def test_distances_are_their_formulas() -> None:
    one, other = rows(0), rows(1)
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    expected = [1 - slow_cosine(a, b) for a, b in pairs]
    assert losses.cosine_distance(one, other).tolist() == pytest.approx(expected, rel=1e-9)
    expected = [1 - slow_cosine(centred(a), centred(b)) for a, b in pairs]
    assert losses.correlation_distance(one, other).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_constant_row_is_uncorrelated_and_gets_no_gradient() -> None:
    # 0.1 is no binary fraction: the mean of the row differs from it by rounding.
    one = torch.full((1, 5), 0.1).requires_grad_()
    distance = losses.correlation_distance(one, rows(0)[:1].float())
    (gradient,) = torch.autograd.grad(distance.sum(), one)
    assert distance.item() == pytest.approx(0.5 + 0.5)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    both = losses.correlation_distance(one, one)
    assert both.item() == 1


def test_close_rows_have_a_distance_that_is_not_rounded_away() -> None:
    one = torch.tensor([[1.0, 1.0]])
    other = torch.tensor([[1.0, 1.0 + 1e-4]])
    # 1 - cos = angle²/2; as 1 less a cosine in float32 it would be 0.
    assert losses.cosine_distance(one, other).item() == pytest.approx((0.5e-4) ** 2 / 2, rel=1e-2)


def test_scaled_exponentials_are_the_same_up_to_a_factor_however_small() -> None:
    logarithms = rows(0)
    found = losses.scaled_exp(logarithms - 1000)
    assert found.amax(dim=1).tolist() == [1.0] * 4
    torch.testing.assert_close(found, logarithms.exp() / logarithms.exp().amax(dim=1, keepdim=True))


def test_gradients_are_those_of_the_formulas() -> None:
    one, other = rows(0).requires_grad_(), rows(1)
    for distance in (losses.correlation_distance, losses.cosine_distance):
        assert torch.autograd.gradcheck(lambda x, d=distance: d(x, other), one)

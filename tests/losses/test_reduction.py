"""The mean over samples and positions, with weights and masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses

MASK = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])


def slow_mean(values: list, weight: list[float], mask: list) -> float:
    total, count = 0.0, 0
    for row, w, kept in zip(values, weight, mask, strict=True):
        for value, keep in zip(row, kept, strict=True):
            if keep:
                total, count = total + w * value, count + 1
    return total / max(count, 1)


@pytest.mark.parametrize("mask", [None, MASK, torch.zeros_like(MASK)], ids=["all", "some", "none"])
@pytest.mark.parametrize(
    "weight", [None, torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64)], ids=["equal", "weighted"]
)
def test_mean_is_its_formula(weight: Tensor | None, mask: Tensor | None) -> None:
    values = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = torch.ones(3, 3, dtype=torch.bool) if mask is None else mask
    weights = [1.0] * 3 if weight is None else weight.tolist()
    expected = slow_mean(values.tolist(), weights, kept.tolist())
    assert losses.mean(values, weight=weight, mask=mask).item() == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=4), st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_weighted_halves_average_to_the_whole(values: list[float], weights: list[float]) -> None:
    v, w = torch.tensor(values, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    halves = (losses.mean(v[:2], weight=w[:2]) + losses.mean(v[2:], weight=w[2:])) / 2
    torch.testing.assert_close(losses.mean(v, weight=w), halves, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 0.5, 1.0])])
def test_masked_places_have_no_effect_on_value_or_gradient(filler: float, weight: Tensor | None) -> None:
    values = torch.ones(3, 3).where(MASK, torch.tensor(filler)).requires_grad_()
    result = losses.mean(values, weight=weight, mask=MASK)
    result.backward()
    assert result.isfinite()
    assert values.grad is not None
    assert (values.grad[~MASK] == 0).all()
    assert (values.grad[MASK] > 0).all()


def test_squared_error_is_the_mean_over_all_that_a_sample_has() -> None:
    one, other = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 4.0]], [[0.0, 1.0]]])
    assert losses.squared_error(one, other).tolist() == [2.5, 0.5]
    large = torch.full((1, 2), 300.0, dtype=torch.float16)
    assert losses.squared_error(large, -large).tolist() == [360000.0]

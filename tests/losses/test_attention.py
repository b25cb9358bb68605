"""The attention map against its definition, and what its form promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses

seeds = st.integers(0, 10**6)


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 2, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(values: Tensor) -> list[list[float]]:
    found = []
    for sample in values.tolist():
        height, width = len(sample[0]), len(sample[0][0])
        flat = [sum(c[h][w] ** 2 for c in sample) / len(sample) for h in range(height) for w in range(width)]
        length = math.sqrt(sum(value**2 for value in flat))
        found.append([value / length for value in flat])
    return found


def test_values_are_the_definition() -> None:
    for ours, expected in zip(losses.attention(maps(0)).tolist(), slow_attention(maps(0)), strict=True):
        assert ours == pytest.approx(expected, rel=1e-9)


def test_a_map_worked_out_by_hand() -> None:
    # Squares (9, 16) and (0, 0) of two channels; their mean (4.5, 8) has the length √84.25.
    two = torch.tensor([[[[3.0, -4.0]], [[0.0, 0.0]]]])
    expected = torch.tensor([[4.5, 8.0]]) / math.sqrt(84.25)
    torch.testing.assert_close(losses.attention(two), expected)


@given(seeds, st.floats(0.01, 100), st.booleans())
def test_the_size_and_the_sign_of_the_maps_play_no_part(seed: int, factor: float, negative: bool) -> None:
    scaled = maps(seed) * (-factor if negative else factor)
    torch.testing.assert_close(losses.attention(scaled), losses.attention(maps(seed)), rtol=1e-9, atol=1e-12)


@given(seeds)
def test_it_has_unit_length_no_negative_entry_and_no_order_of_channels(seed: int) -> None:
    found = losses.attention(maps(seed))
    assert (found >= 0).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(losses.attention(maps(seed).flip(1)), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_the_squares_of_maps_in_half_precision_do_not_overflow(half: torch.dtype) -> None:
    large = 300 * maps(0).float().sign()
    found = losses.attention(large.to(half))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((2, 8), 1 / math.sqrt(8)))


def test_maps_of_zeros_give_zeros_and_finite_gradients() -> None:
    zeros = torch.zeros(2, 3, 2, 2, requires_grad=True)
    found = losses.attention(zeros)
    found.sum().backward()
    assert torch.equal(found, torch.zeros(2, 4))
    assert zeros.grad is not None
    assert torch.equal(zeros.grad, torch.zeros_like(zeros))


def test_gradients_are_those_of_the_values() -> None:
    assert torch.autograd.gradcheck(losses.attention, [maps(0).requires_grad_()])

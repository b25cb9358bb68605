"""Maps at one size, against explicit means over regions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses

sides = st.integers(1, 9)


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_pool(map_of: Tensor, height: int, width: int) -> Tensor:
    """Mean over the rows floor(i·H/h) to ceil((i+1)·H/h) and the columns likewise."""
    H, W = map_of.shape[-2:]
    pooled = torch.empty(*map_of.shape[:2], height, width, dtype=map_of.dtype)
    for i in range(height):
        for j in range(width):
            rows = range(i * H // height, math.ceil((i + 1) * H / height))
            columns = range(j * W // width, math.ceil((j + 1) * W / width))
            values = [map_of[:, :, r, c] for r in rows for c in columns]
            pooled[:, :, i, j] = sum(values) / len(values)
    return pooled


@given(sides, sides, sides, sides)
def test_both_maps_come_at_the_smaller_height_and_width(h: int, w: int, other_h: int, other_w: int) -> None:
    student, teacher = maps(0, 2, 3, h, w), maps(1, 2, 4, other_h, other_w)
    height, width = min(h, other_h), min(w, other_w)
    for aligned, before in zip(losses.align(student, teacher), (student, teacher), strict=True):
        assert aligned.shape == (*before.shape[:2], height, width)
        torch.testing.assert_close(aligned, slow_pool(before, height, width), rtol=1e-9, atol=1e-12)


def test_maps_of_one_size_are_the_same_tensors() -> None:
    student, teacher = maps(0, 2, 3, 4, 5), maps(1, 2, 6, 4, 5)
    aligned = losses.align(student, teacher)
    assert aligned[0] is student
    assert aligned[1] is teacher


def test_the_smaller_map_is_left_alone_and_the_mean_of_the_larger_stays() -> None:
    student, teacher = maps(0, 2, 3, 8, 8), maps(1, 2, 3, 4, 4)
    pooled, same = losses.align(student, teacher)
    assert same is teacher
    torch.testing.assert_close(pooled.mean(dim=(2, 3)), student.mean(dim=(2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("swapped", [False, True])
def test_either_network_may_have_the_larger_maps_and_both_get_gradients(swapped: bool) -> None:
    pair = [maps(0, 1, 2, 4, 6).requires_grad_(), maps(1, 1, 2, 2, 3).requires_grad_()]
    if swapped:
        pair.reverse()
    one, other = losses.align(*pair)
    (one - other).square().sum().backward()
    assert all(value.grad is not None and (value.grad != 0).all() for value in pair)

"""Differences of groups against loops over the tuples, closed forms, and the chances of what is drawn."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses


def rows(views: int = 1, count: int = 6, width: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, count, width, generator=generator, dtype=torch.float64)


def drawn(samples: int, n: int, count: int, seed: int = 5, step: int = 0) -> Tensor:
    return losses.drawn_tuples(samples, n, count, torch.tensor(seed), torch.tensor(step))


def slow_differences(sample_rows: list[list[float]], chosen: list[list[int]]) -> list[list[float]]:
    differences = []
    for one in chosen:
        first, second = one[: len(one) - len(one) // 2], one[len(one) - len(one) // 2 :]
        columns = range(len(sample_rows[0]))
        means = [[sum(sample_rows[i][c] for i in group) / len(group) for c in columns] for group in (first, second)]
        differences.append([a - b for a, b in zip(*means, strict=True)])
    return differences


def slow_mean_square(values: Tensor, chosen: list[list[int]]) -> float:
    squares = [d * d for view in values.tolist() for row in slow_differences(view, chosen) for d in row]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_tuples_are_all_orders_of_all_choices(n: int) -> None:
    found = losses.all_tuples(5, n).view(-1, n).tolist()
    assert sorted(map(tuple, found)) == sorted(itertools.permutations(range(5), n))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_closed_form_is_the_mean_over_all_tuples(n: int) -> None:
    values = rows(views=2)
    expected = slow_mean_square(values, [list(one) for one in itertools.permutations(range(6), n)])
    assert losses.mean_squared_difference(values, n).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_mean_over_drawn_tuples_is_that_of_loops(n: int) -> None:
    values, tuples = rows(views=2), drawn(6, n, 11)
    expected = slow_mean_square(values, tuples.tolist())
    assert losses.mean_squared_difference(values, n, tuples).item() == pytest.approx(expected, rel=1e-9)
    for view, found in zip(values, losses.group_differences(values, tuples), strict=True):
        slow = slow_differences(view.tolist(), tuples.tolist())
        torch.testing.assert_close(found, torch.tensor(slow, dtype=torch.float64))


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_are_those_of_the_formula_and_sum_to_zero_over_the_samples(n: int) -> None:
    values = rows(views=2).requires_grad_()
    for tuples in (None, drawn(6, n, 11)):
        assert torch.autograd.gradcheck(lambda x, t=tuples: losses.mean_squared_difference(x, n, t), values)
        (gradient,) = torch.autograd.grad(losses.mean_squared_difference(values, n, tuples), values)
        assert (gradient.sum(dim=1).abs() < 1e-15).all()


@given(st.integers(3, 9), st.integers(2, 3), st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_what_is_drawn_are_different_samples_and_the_same_again(samples: int, n: int, seed: int, step: int) -> None:
    found = drawn(samples, n, 50, seed, step)
    assert found.shape == (50, n)
    assert ((found >= 0) & (found < samples)).all()
    assert all(len(set(one)) == n for one in found.tolist())
    assert torch.equal(found, drawn(samples, n, 50, seed, step))


def test_each_tuple_is_drawn_equally_often() -> None:
    count, kinds = 60_000, math.perm(6, 3)
    for seed, step in ((0, 0), (1, 0), (1, 1), (123456789, 40)):
        counts = Counter(map(tuple, drawn(6, 3, count, seed, step).tolist()))
        expected = count / kinds
        statistic = sum((counts[one] - expected) ** 2 / expected for one in itertools.permutations(range(6), 3))
        # The mean of χ² is its degrees of freedom, the deviation √(2·degrees): five of them.
        assert abs(statistic - (kinds - 1)) < 5 * math.sqrt(2 * (kinds - 1))


def test_neither_steps_nor_seeds_have_much_in_common() -> None:
    streams = [drawn(1000, 2, 2000, seed, step) for seed in (0, 1) for step in (0, 1, 2)]
    for one, other in itertools.combinations(streams, 2):
        # 2000 pairs of 1000 samples: by chance two agree in a place 4 times in all.
        assert (one == other).sum() < 20
        shared = set(map(tuple, one.tolist())) & set(map(tuple, other.tolist()))
        assert len(shared) < 20


def test_drawing_moves_no_generator() -> None:
    before = torch.get_rng_state()
    drawn(10, 2, 100)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mean_over_draws_is_near_that_of_all() -> None:
    values = rows(count=40)
    whole = losses.mean_squared_difference(values, 3)
    found = losses.mean_squared_difference(values, 3, drawn(40, 3, 50_000))
    torch.testing.assert_close(found, whole, rtol=0.02, atol=0)

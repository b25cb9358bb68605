"""Attention transfer against its formula (shared/spec/vision-methods.md, section 3.2, item 3)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.objectives.at import AT
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

seeds = st.integers(0, 10**6)
Grid = list[list[float]]


def batch_of(size: int, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def at(student: dict[str, Tensor], teacher: dict[str, Tensor], weight: Tensor | None = None) -> Tensor:
    size = len(next(iter(student.values())))
    return AT()(Signals(features=student), Signals(features=teacher), batch_of(size, weight))["at"]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pooled(grid: Grid, factor: int) -> Grid:
    side = range(factor)
    return [
        [
            sum(grid[factor * h + i][factor * w + j] for i in side for j in side) / factor**2
            for w in range(len(grid[0]) // factor)
        ]
        for h in range(len(grid) // factor)
    ]


def slow_attention(channels: list[Grid]) -> list[float]:
    height, width = len(channels[0]), len(channels[0][0])
    flat = [sum(c[h][w] ** 2 for c in channels) / len(channels) for h in range(height) for w in range(width)]
    length = math.sqrt(sum(value * value for value in flat))
    return [value / length for value in flat]


def slow_at(student: list[list[Grid]], teacher: list[list[Grid]]) -> float:
    total, count = 0.0, 0
    for ours, theirs in zip(student, teacher, strict=True):
        factor = len(ours[0]) // len(theirs[0])
        small = [pooled(channel, factor) for channel in ours]
        for a, b in zip(slow_attention(small), slow_attention(theirs), strict=True):
            total, count = total + (a - b) ** 2, count + 1
    return total / count


def test_value_is_the_formula_summed_over_stages_of_equal_and_of_different_sizes() -> None:
    student = {"one": draw(0, 3, 2, 8, 8), "two": draw(1, 3, 5, 2, 2)}
    teacher = {"one": draw(2, 3, 4, 4, 4), "two": draw(3, 3, 3, 2, 2)}
    expected = sum(slow_at(student[name].tolist(), teacher[name].tolist()) for name in student)
    assert at(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_the_larger_map_is_averaged_whichever_networks_it_is() -> None:
    one, other = draw(0, 2, 3, 4, 4), draw(1, 2, 3, 8, 8)
    torch.testing.assert_close(at({"a": one}, {"a": other}), at({"a": other}, {"a": one}))


def test_a_value_worked_out_by_hand() -> None:
    # Attention maps (1, 0) and (0, 1): the mean over two positions of squares of 1, its largest value.
    left, right = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[0.0, -7.0]]]])
    assert at({"a": left}, {"a": right}).item() == pytest.approx(1.0)


def test_it_is_a_mean_over_samples_and_not_a_sum() -> None:
    student, teacher = draw(0, 2, 3, 4, 4), draw(1, 2, 5, 4, 4)
    twice = at({"a": student.repeat(2, 1, 1, 1)}, {"a": teacher.repeat(2, 1, 1, 1)})
    torch.testing.assert_close(twice, at({"a": student}, {"a": teacher}), rtol=1e-12, atol=0)


@given(seeds, st.floats(0.01, 100))
def test_the_size_of_the_maps_and_the_order_of_their_channels_play_no_part(seed: int, factor: float) -> None:
    student, teacher = draw(seed, 2, 3, 4, 4), draw(seed + 1, 2, 5, 4, 4)
    plain = at({"a": student}, {"a": teacher})
    changed = at({"a": factor * student.flip(1)}, {"a": teacher / factor})
    torch.testing.assert_close(changed, plain, rtol=1e-9, atol=1e-13)


@given(seeds)
def test_a_stage_is_between_zero_and_two_over_the_number_of_positions(seed: int) -> None:
    value = at({"a": draw(seed, 2, 3, 4, 4) ** 3}, {"a": draw(seed + 1, 2, 5, 4, 4) ** 3})
    assert 0 <= value <= 2 / 16


def test_stages_without_a_partner_do_not_count() -> None:
    student, teacher = {"a": draw(0, 2, 3, 4, 4)}, {"a": draw(1, 2, 3, 4, 4)}
    more = at({**student, "ours": draw(2, 2, 3, 4, 4)}, {"teacher:theirs": draw(3, 2, 3, 4, 4), **teacher})
    assert torch.equal(more, at(student, teacher))


def test_samples_are_weighted() -> None:
    student, teacher = draw(0, 4, 3, 4, 4), draw(1, 4, 5, 4, 4)
    halves = [at({"a": student[rows]}, {"a": teacher[rows]}) for rows in (slice(0, 2), slice(2, 4))]
    weighted = at({"a": student}, {"a": teacher}, weight=torch.tensor([2.0, 2.0, 0.5, 0.5]))
    torch.testing.assert_close(weighted, (2 * halves[0] + 0.5 * halves[1]) / 2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_maps_of_size_300_in_half_precision_give_what_they_give_in_full(half: torch.dtype) -> None:
    student, teacher = (300 * draw(0, 2, 3, 8, 8)).to(half), (300 * draw(1, 2, 5, 4, 4)).to(half)
    learned = student.requires_grad_()
    loss = at({"a": learned}, {"a": teacher})
    (gradient,) = torch.autograd.grad(loss, learned)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(at({"a": student.double()}, {"a": teacher.double()}).item(), rel=0.02)
    assert gradient.isfinite().all()


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = draw(0, 2, 2, 4, 4).requires_grad_(), draw(1, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda maps: at({"a": maps}, {"a": teacher}), [student])


def test_nothing_is_built_or_trained() -> None:
    objective = AT()
    objective.build(sample_signals(1), sample_signals(2))
    assert objective.state_dict() == {}
    assert objective(sample_signals(1), sample_signals(1), sample_batch())["at"] == 0

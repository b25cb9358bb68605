"""Similarity-preserving distillation against its formula (shared/spec/vision-methods.md, section 3.2, item 4)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SignalError
from limbeck.objectives.sp import SP
from limbeck.signals import Batch, Signals

seeds = st.integers(0, 10**6)
Rows = list[list[float]]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(size: int) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64))


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    signals = Signals(features={"a": student}), Signals(features={"b": teacher})
    return SP()(*signals, batch_of(len(student)))["sp"]


def slow_similarities(maps: Tensor) -> Rows:
    rows = maps.flatten(1).tolist()
    matrix = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in matrix]


def slow_sp(student: Tensor, teacher: Tensor) -> float:
    ours, theirs = slow_similarities(student), slow_similarities(teacher)
    n = len(ours)
    return sum((theirs[i][j] - ours[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def test_value_is_the_formula_for_maps_of_any_two_shapes() -> None:
    student, teacher = draw(0, 6, 2, 3, 5), draw(1, 6, 4, 2, 2)
    assert sp(student, teacher).item() == pytest.approx(slow_sp(student, teacher), rel=1e-9)


def test_a_value_worked_out_by_hand() -> None:
    # G of the student is the identity; the teacher's is all ones, its rows (1, 1)/√2 after normalisation.
    student, teacher = torch.eye(2).reshape(2, 2, 1, 1), torch.ones(2, 1, 1, 1)
    expected = (2 * (1 - 1 / math.sqrt(2)) ** 2 + 2 * 0.5) / 4
    assert sp(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_only_the_last_stage_of_each_network_counts_and_they_need_not_be_matched() -> None:
    student, teacher = draw(0, 4, 2, 3, 3), draw(1, 4, 5, 2, 2)
    ours = Signals(features={"early": draw(2, 4, 2, 6, 6), "late": student})
    theirs = Signals(features={"early": draw(3, 4, 2, 6, 6), "middle": draw(4, 4, 1, 2, 2), "teacher:x": teacher})
    assert torch.equal(SP()(ours, theirs, batch_of(4))["sp"], sp(student, teacher))


@given(seeds, st.floats(0.01, 100))
def test_size_rotation_and_order_of_the_channels_play_no_part(seed: int, factor: float) -> None:
    student, teacher = draw(seed, 4, 3, 1, 1), draw(seed + 1, 4, 2, 2, 2)
    rotation, _ = torch.linalg.qr(draw(seed + 2, 3, 3))
    turned = (student.flatten(1) @ rotation).reshape(student.shape)
    torch.testing.assert_close(
        sp(factor * turned, teacher.flip(1) / factor), sp(student, teacher), rtol=1e-7, atol=1e-10
    )


@given(seeds)
def test_it_is_zero_for_equal_maps_and_at_most_two_over_the_batch_without_negative_entries(seed: int) -> None:
    student, teacher = draw(seed, 5, 3, 2, 2).relu(), draw(seed + 1, 5, 3, 2, 2).relu()
    assert sp(student, student) == 0
    assert 0 <= sp(student, teacher) <= 2 / 5


def test_the_weight_of_a_sample_plays_no_part_since_samples_are_compared() -> None:
    student, teacher = draw(0, 4, 2, 3, 3), draw(1, 4, 2, 3, 3)
    weighted = Batch(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), weight=torch.tensor([2.0, 0.0, 1.0, 1.0]))
    value = SP()(Signals(features={"a": student}), Signals(features={"a": teacher}), weighted)["sp"]
    assert torch.equal(value, sp(student, teacher))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_maps_of_size_300_in_half_precision_give_what_they_give_in_full(half: torch.dtype) -> None:
    student, teacher = (300 * draw(0, 4, 3, 8, 8)).to(half), (300 * draw(1, 4, 5, 4, 4)).to(half)
    learned = student.requires_grad_()
    loss = sp(learned, teacher)
    (gradient,) = torch.autograd.grad(loss, learned)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sp(student.double(), teacher.double()).item(), rel=1e-4)
    assert gradient.isfinite().all()


def test_a_sample_whose_map_is_zero_has_a_finite_gradient() -> None:
    student = draw(0, 3, 2, 2, 2)
    student[1] = 0
    loss = sp(student.requires_grad_(), draw(1, 3, 2, 2, 2))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = draw(0, 3, 2, 2, 2).requires_grad_(), draw(1, 3, 3, 1, 2)
    assert torch.autograd.gradcheck(lambda maps: sp(maps, teacher), [student])


def test_one_sample_has_no_other_to_be_like() -> None:
    with pytest.raises(SignalError, match=r"sp\(\) compares samples of a batch: it needs at least 2, got 1"):
        SP().check_batch_size(1)


def test_signals_without_maps_are_refused() -> None:
    with pytest.raises(SignalError, match=r"sp\(\) needs the teacher's stages"):
        SP().check(Signals(features={"a": draw(0, 2, 1, 1, 1)}), Signals(), batch_of(2))

"""RKD against its explicit formula (shared/spec/vision-methods.md, 3.2 item 7 and section 7, B4)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import parse_objective
from limbeck.objectives.rkd import RKD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_signals

STUDENT, TEACHER = (sample_signals(seed, embedding_size=6 + seed, dtype=torch.float64).embedding for seed in (0, 1))
Rows = list[list[float]]


def rkd(student: Tensor, teacher: Tensor, **options: float) -> dict[str, Tensor]:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(len(student), dtype=torch.int64))
    return RKD(**options)(Signals(embedding=student), Signals(embedding=teacher), batch)


def total(student: Tensor, teacher: Tensor) -> Tensor:
    return sum(rkd(student, teacher).values(), torch.zeros(()))


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap * gap / 2 if gap < 1 else gap - 0.5


def slow_distances(rows: Rows) -> Rows:
    count = len(rows)
    distances = [[0.0] * count for _ in rows]
    for i in range(count):
        for j in range(count):
            if i != j:
                squared = sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))
                distances[i][j] = math.sqrt(max(squared, 1e-12))
    positive = [value for row in distances for value in row if value > 0]
    average = sum(positive) / len(positive)
    return [[value / average for value in row] for row in distances]


def slow_direction(start: list[float], end: list[float]) -> list[float]:
    difference = [b - a for a, b in zip(start, end, strict=True)]
    length = math.sqrt(sum(value * value for value in difference))
    return [value / max(length, 1e-12) for value in difference]


def slow_rkd(student: Rows, teacher: Rows) -> dict[str, float]:
    count = range(len(student))
    ours, theirs = slow_distances(student), slow_distances(teacher)
    distance = sum(huber(ours[i][j], theirs[i][j]) for i in count for j in count) / len(student) ** 2
    angle = 0.0
    for i in count:
        s_all, t_all = ([slow_direction(rows[i], row) for row in rows] for rows in (student, teacher))
        for j in count:
            for k in count:
                s = sum(a * b for a, b in zip(s_all[j], s_all[k], strict=True))
                t = sum(a * b for a, b in zip(t_all[j], t_all[k], strict=True))
                angle += huber(s, t)
    return {"distance": 25 * distance, "angle": 50 * angle / len(student) ** 3}


def test_terms_are_the_formula() -> None:
    # Stretched, so that some differences of distances are beyond the quadratic part of Huber's loss.
    student = STUDENT * torch.tensor([[1.0], [9], [1], [1], [1], [1], [1], [1]], dtype=torch.float64)
    for one in (STUDENT, student):
        terms, expected = rkd(one, TEACHER), slow_rkd(one.tolist(), TEACHER.tolist())
        assert terms.keys() == expected.keys()
        for name, value in expected.items():
            assert terms[name].item() == pytest.approx(value, rel=1e-9)


def test_a_right_and_an_equal_sided_triangle_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    terms = rkd(student, teacher, distance=1.0, angle=1.0)
    mean = (2 + math.sqrt(2)) / 3
    short, long = 1 / mean - 1, math.sqrt(2) / mean - 1
    assert terms["distance"].item() == pytest.approx((4 * short**2 / 2 + 2 * long**2 / 2) / 9, rel=1e-5)
    # Angles of 90, 45 and 45 degrees against three of 60; each is met twice.
    expected = 2 * (0.5**2 / 2 + 2 * (math.sqrt(0.5) - 0.5) ** 2 / 2) / 27
    assert terms["angle"].item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 1000), st.floats(-100, 100), st.integers(2, 9))
def test_rotated_moved_and_scaled_embeddings_change_nothing(seed: int, scale: float, shift: float, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    assert total(scale * teacher @ turn + shift, teacher) < 1e-12
    moved, plain = rkd(scale * student @ turn + shift, teacher), rkd(student, teacher)
    for name in plain:
        assert torch.allclose(moved[name], plain[name], rtol=1e-6, atol=1e-9)


def test_a_batch_of_two_has_nothing_to_teach() -> None:
    terms = rkd(STUDENT[:2], TEACHER[:2])
    assert terms["distance"].abs() < 1e-12
    assert terms["angle"].abs() < 1e-12


def test_a_weight_of_zero_leaves_the_term_out() -> None:
    both = rkd(STUDENT, TEACHER)
    assert rkd(STUDENT, TEACHER, angle=0) == {"distance": both["distance"]}
    assert rkd(STUDENT, TEACHER, distance=0) == {"angle": both["angle"]}
    assert torch.equal(rkd(STUDENT, TEACHER, distance=50.0)["distance"], 2 * both["distance"])


@pytest.mark.parametrize("name", ["distance", "angle"])
def test_gradients_are_those_of_the_formula(name: str) -> None:
    student = STUDENT[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: rkd(value, TEACHER[:5])[name], student)


def test_samples_that_coincide_give_the_formula_and_finite_gradients() -> None:
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[2], student[4] = student[1], student[1]
    teacher[6], teacher[1] = teacher[5], teacher[0]
    student.requires_grad_()
    terms = rkd(student, teacher)
    for name, value in slow_rkd(student.tolist(), teacher.tolist()).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9)
    (gradient,) = torch.autograd.grad(sum(terms.values()), student)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    # Nothing pulls apart what is in one place: the gradients of the three are equal but for what others say of them.
    assert gradient.abs().max() < 100


def test_close_samples_far_from_the_origin_are_no_rounding_noise_in_float32() -> None:
    # The inner products of these are 500, and the squared distance of the first two is 0.0005.
    torch.manual_seed(0)
    student, teacher = 100 + torch.randn(5, 515), torch.randn(5, 515)
    student[1] = student[0] + 1e-3 * torch.randn(515)
    double = student.double().requires_grad_()
    terms, expected = rkd(student.requires_grad_(), teacher), rkd(double, teacher.double())
    for name in expected:
        assert terms[name].item() == pytest.approx(expected[name].item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(sum(terms.values()), student)
    (exact,) = torch.autograd.grad(sum(expected.values()), double)
    # The gradient goes through the inner products, and so is less exact than the value.
    assert (gradient - exact).norm() < 3e-2 * exact.norm()


def test_a_collapsed_student_is_finite() -> None:
    student = torch.full((6, 4), 3.0).requires_grad_()
    loss = total(student, torch.randn(6, 5))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_samples_that_nearly_coincide_have_finite_gradients() -> None:
    for gap in (1e-2, 1e-4, 1e-6, 1e-8, 1e-15, 1e-30):
        student = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        student[:2] = 0
        student[1, 0] = gap
        student.requires_grad_()
        loss = total(student, torch.randn(6, 5, generator=torch.Generator().manual_seed(1)))
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_large_half_precision_embeddings_are_computed_in_float32(
    dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    student, teacher = ((300 * torch.randn(16, 2048)).to(dtype) for _ in range(2))
    student.requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        terms = rkd(student, teacher)
    expected = rkd(student.double(), teacher.double())
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3)
    (1e4 * sum(terms.values())).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_nothing_that_is_kept_for_the_gradient_has_a_number_for_each_pair_and_dimension() -> None:
    # 64 samples of 2048 numbers: the differences of all pairs are 8 million numbers, the angles a quarter of a million.
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor.numel()), tensor)[1], lambda t: t):
        total(torch.randn(64, 2048, requires_grad=True), torch.randn(64, 512))
    assert max(kept) == 64**3


def test_presets_have_the_weights_of_the_benchmark() -> None:
    assert str(parse_objective("rkd")) == "ce() + rkd()"
    assert str(parse_objective("rkd+kd")) == "ce() + rkd() + kd()"
    assert RKD.defaults() == {"distance": 25.0, "angle": 50.0}


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match=r"rkd\(\) compares samples of a batch: it needs at least 2, got 1"):
        parse_objective("rkd()").check_batch_size(1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"distance": -1}, "distance must be at least 0"),
        ({"angle": math.inf}, "angle must be a finite number"),
        ({"angle": "50"}, "angle must be a finite number"),
        ({"distance": 0, "angle": 0}, "distance and angle are both 0, so rkd has nothing to compare"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        RKD(**options)

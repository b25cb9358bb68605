"""DIST against its explicit formula; constant and vanishing probabilities; samples of all processes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import objective_class, parse_objective, presets
from limbeck.testing import sample_batch, sample_signals

from .slow_logits import columns, inputs, softmax, terms_of

DIST = objective_class("dist")
dist = partial(terms_of, DIST, temperature=1.0)


def pearson(ours: list[float], theirs: list[float]) -> float:
    n = len(ours)
    a, b = ([value - sum(values) / n for value in values] for values in (ours, theirs))
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_dist(student: Tensor, teacher: Tensor, temperature: float) -> tuple[list[float], list[float]]:
    ours, theirs = softmax(student, temperature), softmax(teacher, temperature)
    inter = [1 - pearson(a, b) for a, b in zip(ours, theirs, strict=True)]
    return inter, [1 - pearson(a, b) for a, b in zip(columns(ours), columns(theirs), strict=True)]


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0])
def test_terms_are_the_formula(temperature: float) -> None:
    inter, intra = slow_dist(*inputs(), temperature)
    terms = dist(*inputs(), temperature=temperature, inter=0.5, intra=3)
    assert list(terms) == ["inter_class", "intra_class"]
    assert terms["inter_class"].item() == pytest.approx(0.5 * temperature**2 * sum(inter) / 8, rel=1e-9)
    assert terms["intra_class"].item() == pytest.approx(3 * temperature**2 * sum(intra) / 5, rel=1e-9)


def test_hand_computed() -> None:
    # Rows 1/2, 1/3, 1/6 and 1/6, 1/3, 1/2: each is linear in its classes, one up and one down. The middle column is constant.
    rising, falling = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    same = torch.tensor([rising, falling]).log()
    turned = torch.tensor([falling, rising]).log()
    opposite = dist(same, turned)
    assert opposite["inter_class"].item() == pytest.approx(2, abs=1e-5)
    assert opposite["intra_class"].item() == pytest.approx((2 + 1 + 2) / 3, abs=1e-5)


def test_samples_are_weighted_along_the_classes() -> None:
    inter, intra = slow_dist(*inputs(), 1.0)
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    terms = dist(*inputs(), weight=weight)
    expected = sum(w * value for w, value in zip(weight.tolist(), inter, strict=True)) / 8
    assert terms["inter_class"].item() == pytest.approx(expected, rel=1e-9)
    assert terms["intra_class"].item() == pytest.approx(sum(intra) / 5, rel=1e-9)


@given(st.integers(0, 10**6))
def test_probabilities_that_are_an_increasing_linear_function_of_the_teachers_cost_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.softmax(torch.randn(4, 6, generator=generator, dtype=torch.float64), dim=1)
    share = 0.05 + 0.9 * torch.rand((), generator=generator, dtype=torch.float64)
    # Part of the teacher's, the rest the same for every class: the rows still sum to 1.
    student = share * teacher + (1 - share) / 6
    for value in dist(student.log(), teacher.log()).values():
        assert 0 <= value < 1e-12


@given(st.integers(0, 10**6))
def test_each_term_is_between_0_and_twice_the_square_of_the_temperature(seed: int) -> None:
    student, teacher = 5 * torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))
    for value in dist(student, teacher, temperature=2.0).values():
        assert 0 <= value <= 8 + 1e-4


def test_the_size_of_a_probability_plays_no_part() -> None:
    # A class of probability e^-40: the norms of its column are far below 1e-8, and their squares underflow in float32.
    student, teacher = inputs()
    offset = torch.tensor([0.0, 0, 0, 0, -40], dtype=torch.float64)
    student, teacher = student + offset, teacher + offset
    _, intra = slow_dist(student, teacher, 1.0)
    logits = student.float().requires_grad_()
    value = dist(logits, teacher.float(), inter=0)["intra_class"]
    assert value.item() == pytest.approx(sum(intra) / 5, rel=1e-5)
    (gradient,) = torch.autograd.grad(value, logits)
    exact = student.clone().requires_grad_()
    (expected,) = torch.autograd.grad(dist(exact, teacher, inter=0)["intra_class"], exact)
    assert expected[:, 4].abs().max() > 1e-3, "the class still learns"
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 7, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_of_equal_logits_is_uncorrelated_and_gets_no_gradient(classes: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = 8 * torch.randn(16, classes, generator=generator, dtype=dtype)
    student = torch.randn(16, 1, generator=generator, dtype=dtype).expand(16, classes).clone().requires_grad_()
    terms = dist(student, teacher)
    assert [value.item() for value in terms.values()] == pytest.approx([1, 1], rel=1e-6)
    (gradient,) = torch.autograd.grad(sum(terms.values()), student)
    assert (gradient == 0).all()
    backwards = dist(teacher.clone().requires_grad_(), student.detach())
    assert [value.item() for value in backwards.values()] == pytest.approx([1, 1], rel=1e-6)


def test_one_constant_row_or_column_leaves_the_gradients_of_the_others() -> None:
    student, teacher = inputs()
    student[2] = 0.7
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(dist(student, teacher, intra=0)["inter_class"], student)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=1) > 0).tolist() == [i != 2 for i in range(8)]


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_sure_networks_have_finite_values_and_gradients(scale: float) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        student, teacher = scale * torch.randn(2, 8, 50, generator=generator)
        student.requires_grad_()
        terms = dist(student, teacher)
        (gradient,) = torch.autograd.grad(sum(terms.values()), student)
        assert all(value.isfinite() for value in terms.values())
        assert gradient.isfinite().all()


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = (logits[:4] for logits in inputs())
    assert torch.autograd.gradcheck(lambda z: tuple(dist(z, teacher).values()), student.requires_grad_())


def test_equal_logits_cost_exactly_nothing() -> None:
    student, _ = inputs(torch.float32)
    assert [value.item() for value in dist(student, student.clone()).values()] == [0.0, 0.0]


def test_half_precision_is_raised() -> None:
    student, teacher = inputs(torch.float32)
    terms = dist(student.bfloat16(), teacher.bfloat16())
    for name, value in dist(student, teacher).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value, rtol=0.05, atol=0)


def test_without_a_term_it_is_left_out_and_with_it_what_it_asks_of_the_batch() -> None:
    assert list(dist(*inputs(), inter=0)) == ["intra_class"]
    assert list(dist(*inputs(), intra=0)) == ["inter_class"]
    assert (DIST(intra=0).batch_coupled, DIST(intra=0).minimum_batch) == (False, 1)
    assert (DIST(inter=0).batch_coupled, DIST(inter=0).minimum_batch) == (True, 2)


def test_a_batch_of_one_is_an_error() -> None:
    signals = sample_signals(0).map(lambda value: value[:1])
    with pytest.raises(SignalError, match=r"dist\(\) compares samples of a batch: it needs at least 2, got 1"):
        DIST().check(signals, signals, sample_batch()[:1])


def test_the_preset_has_the_papers_numbers() -> None:
    (_, ce, _), (_, weight, part) = parse_objective(presets()["dist"]).entries()
    assert (ce, weight, part.arguments()) == (1, 2, {"temperature": 4, "inter": 1, "intra": 1})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0}, "temperature must be greater than 0"),
        ({"inter": -1}, "inter must be at least 0"),
        ({"intra": "1"}, "intra must be a finite number"),
        ({"inter": 0, "intra": 0}, "inter and intra are both 0, so there is nothing to train on"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        DIST(**options)

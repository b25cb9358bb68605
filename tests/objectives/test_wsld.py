"""WSLD against its explicit formula; the weights steer and are not steered."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import objective_class, parse_objective, presets
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

WSLD = objective_class("wsld")


def wsld(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 2.0, **batch: Tensor) -> Tensor:
    whole = Batch(torch.zeros(len(student), 1), labels, **batch)
    return WSLD(temperature=temperature)(Signals(logits=student), Signals(logits=teacher), whole)["wsld"]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return sample_signals(0, dtype=dtype).logits, sample_signals(1, dtype=dtype).logits, sample_batch().labels


def log_softmax(row: list[float], temperature: float) -> list[float]:
    total = math.log(sum(math.exp(value / temperature) for value in row))
    return [value / temperature - total for value in row]


def slow_wsld(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> list[float]:
    values = []
    for ours, theirs, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        weight = 1 - math.exp(log_softmax(ours, 1.0)[label] / (-log_softmax(theirs, 1.0)[label] + 1e-7))
        log_q, log_p = log_softmax(ours, temperature), log_softmax(theirs, temperature)
        values.append(-(temperature**2) * weight * sum(math.exp(p) * q for p, q in zip(log_p, log_q, strict=True)))
    return values


@pytest.mark.parametrize("temperature", [0.5, 1, 2.0])
def test_value_is_the_formula(temperature: float) -> None:
    expected = slow_wsld(*inputs(), temperature)
    assert wsld(*inputs(), temperature).item() == pytest.approx(sum(expected) / 8, rel=1e-9)
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    mean = sum(w * value for w, value in zip(weight.tolist(), expected, strict=True)) / 8
    assert wsld(*inputs(), temperature, weight=weight).item() == pytest.approx(mean, rel=1e-9)


def test_hand_computed() -> None:
    # The label has 1/4 with the student and 1/2 with the teacher: CE is ln 4 and ln 2, the ratio 2.
    student, teacher = torch.tensor([[1.0, 3.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    soft = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4)
    value = wsld(student, teacher, torch.tensor([0]), temperature=1.0)
    assert value.item() == pytest.approx((1 - math.exp(-2)) * soft, rel=1e-5)


def test_the_weights_carry_no_gradient() -> None:
    student, teacher, labels = inputs()
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(wsld(student, teacher, labels), student)
    ratio = torch.nn.functional.cross_entropy(student, labels, reduction="none").detach() / (
        torch.nn.functional.cross_entropy(teacher, labels, reduction="none") + 1e-7
    )
    weight = 1 - torch.exp(-ratio)
    # T²/B · w · (q - p)/T
    gap = torch.softmax(student.detach() / 2, dim=1) - torch.softmax(teacher / 2, dim=1)
    torch.testing.assert_close(gradient, 2 / 8 * weight[:, None] * gap, rtol=1e-9, atol=1e-12)


def test_for_equal_logits_the_teachers_entropy_remains_and_nothing_is_learned() -> None:
    student, _, labels = inputs()
    same = student.clone().requires_grad_()
    value = wsld(same, student, labels)
    p = torch.softmax(student / 2, dim=1)
    expected = 4 * (1 - math.exp(-1)) * -(p * p.log()).sum(dim=1).mean()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(value, same)
    assert gradient.abs().max() < 1e-12
    assert not WSLD.zero_when_equal


@given(st.floats(-2, 8))
def test_a_better_student_is_taught_less(lead: float) -> None:
    # Two classes, the label's logit ahead by `lead`; the teacher's by 2.
    label = torch.tensor([0])

    def weight(ahead: float) -> float:
        student = torch.tensor([[ahead, 0.0]], dtype=torch.float64)
        teacher = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
        q, p = torch.log_softmax(student / 2, dim=1), torch.softmax(teacher / 2, dim=1)
        return (wsld(student, teacher, label) / (-4 * (p * q).sum())).item()

    assert 0 < weight(lead + 0.5) < weight(lead) <= 1
    assert weight(2.0) == pytest.approx(1 - math.exp(-1), rel=1e-6)


def test_a_teacher_that_is_sure_to_the_last_bit_leaves_values_and_gradients_finite() -> None:
    sure, labels = 200 * torch.eye(5), torch.arange(5)
    for student in (sure, -sure, torch.zeros(5, 5)):
        student = student.clone().requires_grad_()
        value = wsld(student, sure, labels)
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite()
        assert gradient.isfinite().all()
    assert wsld(sure, sure, labels).item() == 0, "student and teacher are both without error: weight 0"
    assert wsld(torch.zeros(5, 5), sure, labels).item() == pytest.approx(4 * math.log(5), rel=1e-5)


def test_small_weights_are_not_rounded_away() -> None:
    # The ratio of the cross-entropies is about 1e-8: in float32 1 - exp(-x) is 0 for it.
    student, teacher = torch.tensor([[11.5, 0.0]]), torch.tensor([[-1000.0, 0.0]])
    value = wsld(student, teacher, torch.tensor([0])).item()
    ratio = math.log1p(math.exp(-11.5)) / 1000
    assert 1 - torch.tensor(-ratio).exp() == 0
    assert value == pytest.approx(4 * ratio * 11.5 / 2, rel=0.02)


def test_only_positions_inside_the_mask_count() -> None:
    student, teacher = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    labels = torch.tensor([[1, 4, -100], [0, -100, -100]])
    signals = Signals(logits=student, mask=mask), Signals(logits=teacher, mask=mask)
    value = WSLD()(*signals, Batch(torch.zeros(2, 1), labels))["wsld"]
    torch.testing.assert_close(value, wsld(student[mask], teacher[mask], labels[mask]))


def test_half_precision_is_raised() -> None:
    student, teacher, labels = inputs(torch.float32)
    value = wsld(student.bfloat16(), teacher.bfloat16(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, wsld(student, teacher, labels), rtol=0.05, atol=0)


def test_the_preset_has_the_papers_numbers() -> None:
    (_, ce, _), (_, weight, part) = parse_objective(presets()["wsld"]).entries()
    assert (ce, weight, part.arguments()) == (1, 2.5, {"temperature": 2})


@pytest.mark.parametrize("temperature", [0, -1, math.inf, "2", True])
def test_the_temperature_is_a_positive_finite_number(temperature: Any) -> None:
    with pytest.raises(SettingError, match="temperature must be"):
        WSLD(temperature=temperature)

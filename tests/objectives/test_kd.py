"""Softened knowledge distillation: direction, scale, weights, masks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import KD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals


def kd(student: Tensor, teacher: Tensor, temperature: float = 1.0, **batch: Tensor) -> Tensor:
    labels = torch.zeros(student.shape[:-1], dtype=torch.int64)
    terms = KD(temperature=temperature)(
        Signals(logits=student), Signals(logits=teacher), Batch(torch.zeros(len(student), 1), labels, **batch)
    )
    return terms["kd"]


def test_value_is_the_formula() -> None:
    student, teacher = sample_signals(0, dtype=torch.float64).logits, sample_signals(1, dtype=torch.float64).logits
    temperature, total = 4.0, 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        s_sum = sum(math.exp(value / temperature) for value in s_row)
        t_sum = sum(math.exp(value / temperature) for value in t_row)
        for s, t in zip(s_row, t_row, strict=True):
            p, q = math.exp(t / temperature) / t_sum, math.exp(s / temperature) / s_sum
            total += p * (math.log(p) - math.log(q))
    assert kd(student, teacher, temperature).item() == pytest.approx(temperature**2 * total / 8, rel=1e-9)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    forward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kd(student=unsure, teacher=sure).item() == pytest.approx(forward, rel=1e-5)
    assert kd(student=sure, teacher=unsure).item() == pytest.approx(reverse, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 3, 20.0])
def test_logits_and_temperature_scaled_together_scale_the_loss_by_the_square(temperature: float) -> None:
    student, teacher = sample_signals(0, dtype=torch.float64).logits, sample_signals(1, dtype=torch.float64).logits
    scaled = kd(temperature * student, temperature * teacher, temperature)
    torch.testing.assert_close(scaled, temperature**2 * kd(student, teacher), rtol=1e-9, atol=0)


def test_the_gradient_keeps_its_size_at_high_temperatures() -> None:
    # At high T the gradient is that of the squared distance of centred logits over 2·B·C (Hinton et al., 2015, section 2.1).
    student, teacher = sample_signals(0, dtype=torch.float64).logits.requires_grad_(), sample_signals(1).logits.double()
    (gradient,) = torch.autograd.grad(kd(student, teacher, 1e4), student)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, centred.detach() / student.numel(), rtol=1e-2, atol=1e-5)


def test_samples_are_weighted() -> None:
    student, teacher = sample_signals(0).logits, sample_signals(1).logits
    expected = (2 * kd(student[:4], teacher[:4]) + 0.5 * kd(student[4:], teacher[4:])) / 2
    weight = torch.tensor([2.0] * 4 + [0.5] * 4)
    torch.testing.assert_close(kd(student, teacher, weight=weight), expected)


def test_only_positions_inside_the_mask_count() -> None:
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.int64))
    signals = Signals(logits=student, mask=mask), Signals(logits=teacher, mask=mask)
    torch.testing.assert_close(KD(temperature=1)(*signals, batch)["kd"], kd(student[mask], teacher[mask]))


def test_labels_play_no_part() -> None:
    batch = sample_batch()
    signals = sample_signals(0), sample_signals(1)
    other = replace(batch, labels=(batch.labels + 1) % 5)
    assert torch.equal(KD()(*signals, batch)["kd"], KD()(*signals, other)["kd"])


@pytest.mark.parametrize("temperature", [0, -1, math.inf, 10**400, "4"])
def test_the_temperature_is_a_positive_finite_number(temperature: object) -> None:
    with pytest.raises(SettingError, match="temperature must be"):
        KD(temperature=temperature)  # type: ignore[arg-type]

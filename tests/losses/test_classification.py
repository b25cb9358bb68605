"""Losses on logits against explicit loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses


def logits(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def slow_cross_entropy(row: list[float], label: int, smoothing: float) -> float:
    total = 0.0
    for c, p in enumerate(softmax(row)):
        target = smoothing / len(row) + (1 - smoothing if c == label else 0)
        total -= target * math.log(p)
    return total


def slow_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    p = softmax([value / temperature for value in teacher])
    q = softmax([value / temperature for value in student])
    return sum(p_c * (math.log(p_c) - math.log(q_c)) for p_c, q_c in zip(p, q, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(4,), (3, 2)])
def test_cross_entropy_is_its_formula_at_every_sample_or_position(shape: tuple[int, ...], smoothing: float) -> None:
    z = logits(0, *shape, 5)
    labels = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(1))
    values = losses.cross_entropy(z, labels, label_smoothing=smoothing)
    assert values.shape == shape
    rows, flat = z.reshape(-1, 5).tolist(), labels.flatten().tolist()
    expected = [slow_cross_entropy(row, label, smoothing) for row, label in zip(rows, flat, strict=True)]
    torch.testing.assert_close(values.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("temperature", [1, 4.0, 0.5])
@pytest.mark.parametrize("shape", [(4,), (3, 2)])
def test_kl_divergence_is_its_formula_from_teacher_to_student(shape: tuple[int, ...], temperature: float) -> None:
    student, teacher = logits(0, *shape, 5), logits(1, *shape, 5)
    values = losses.kl_divergence(student, teacher, temperature=temperature)
    assert values.shape == shape
    rows = zip(student.reshape(-1, 5).tolist(), teacher.reshape(-1, 5).tolist(), strict=True)
    expected = torch.tensor([slow_kl(s, t, temperature) for s, t in rows], dtype=torch.float64)
    torch.testing.assert_close(values.flatten(), expected, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.1, 20), st.floats(-50, 50))
def test_kl_divergence_is_positive_zero_for_equal_and_blind_to_shifts(
    seed: int, temperature: float, shift: float
) -> None:
    student, teacher = logits(seed, 3, 4), logits(seed + 1, 3, 4)
    values = losses.kl_divergence(student, teacher, temperature=temperature)
    assert (values > 0).all()
    shifted = losses.kl_divergence(student + shift, teacher - shift, temperature=temperature)
    torch.testing.assert_close(shifted, values, rtol=1e-7, atol=1e-12)
    assert losses.kl_divergence(teacher + shift, teacher, temperature=temperature).abs().max() < 1e-12


@given(st.permutations(range(5)))
def test_the_order_of_classes_does_not_matter(order: list[int]) -> None:
    student, teacher, labels = logits(0, 4, 5), logits(1, 4, 5), torch.tensor([0, 1, 4, 2])
    place = torch.tensor([order.index(c) for c in range(5)])
    for plain, permuted in (
        (losses.kl_divergence(student, teacher), losses.kl_divergence(student[:, order], teacher[:, order])),
        (losses.cross_entropy(student, labels), losses.cross_entropy(student[:, order], place[labels])),
    ):
        torch.testing.assert_close(permuted, plain, rtol=1e-12, atol=0)


def test_large_logits_stay_finite_in_value_and_gradient() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    (losses.kl_divergence(student, teacher) + losses.cross_entropy(student, torch.tensor([1]))).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()

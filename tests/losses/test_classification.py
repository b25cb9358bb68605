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


def slow_standardise(row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - 1))
    return [(value - mean) / (deviation + 1e-7) for value in row]


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 2, 5), (4, 2)])
def test_standardised_logits_are_the_formula_over_the_classes(shape: tuple[int, ...]) -> None:
    z = logits(0, *shape)
    expected = [slow_standardise(row) for row in z.reshape(-1, shape[-1]).tolist()]
    torch.testing.assert_close(
        losses.standardise(z), torch.tensor(expected, dtype=torch.float64).reshape(shape), rtol=1e-9, atol=1e-12
    )


def test_standardised_logits_by_hand() -> None:
    # The unbiased deviation of (1, 2, 3) is 1; the biased one would be 0.816.
    z = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(losses.standardise(z), torch.tensor([[-1.0, 0.0, 1.0]]).double(), rtol=2e-7, atol=0)


@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-100, 100))
def test_standardised_logits_have_mean_0_and_deviation_1_whatever_their_size_and_offset(
    seed: int, size: float, offset: float
) -> None:
    z = size * logits(seed, 3, 6) + offset
    standard = losses.standardise(z)
    assert standard.mean(dim=-1).abs().max() < 1e-9
    assert (standard.std(dim=-1) - 1).abs().max() < 1e-5
    torch.testing.assert_close(standard, losses.standardise(logits(seed, 3, 6)), rtol=1e-4, atol=1e-5)


def test_equal_logits_are_standardised_to_zero_with_finite_gradients() -> None:
    for row in ([0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [1e4, 1e4, 1e4]):
        z = torch.tensor([row], requires_grad=True)
        standard = losses.standardise(z)
        (standard * torch.tensor([1.0, 2.0, -3.0])).sum().backward()
        assert standard.abs().max() == 0
        assert z.grad is not None
        assert z.grad.isfinite().all()


def test_gradients_of_standardised_logits_are_those_of_the_formula() -> None:
    assert torch.autograd.gradcheck(losses.standardise, logits(0, 3, 5).requires_grad_())

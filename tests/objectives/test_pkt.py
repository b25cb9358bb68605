"""PKT against its explicit formula (shared/spec/vision-methods.md, 3.2 item 8)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SignalError
from limbeck.objectives import parse_objective
from limbeck.objectives.pkt import PKT, _probabilities
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_signals

STUDENT, TEACHER = (sample_signals(seed, embedding_size=6 + seed, dtype=torch.float64).embedding for seed in (0, 1))


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(len(student), dtype=torch.int64))
    return PKT()(Signals(embedding=student), Signals(embedding=teacher), batch)["pkt"]


def slow_probabilities(rows: list[list[float]]) -> list[list[float]]:
    unit = [[value / (math.sqrt(sum(v * v for v in row)) + 1e-7) for value in row] for row in rows]
    result = []
    for one in unit:
        similar = [(sum(a * b for a, b in zip(one, other, strict=True)) + 1) / 2 for other in unit]
        result.append([value / sum(similar) for value in similar])
    return result


def slow_pkt(student: Tensor, teacher: Tensor) -> float:
    ours, theirs = slow_probabilities(student.tolist()), slow_probabilities(teacher.tolist())
    total = 0.0
    for s_row, t_row in zip(ours, theirs, strict=True):
        for s, t in zip(s_row, t_row, strict=True):
            total += t * math.log((t + 1e-7) / (s + 1e-7))
    return total / len(ours) ** 2


def test_value_is_the_formula() -> None:
    assert pkt(STUDENT, TEACHER).item() == pytest.approx(slow_pkt(STUDENT, TEACHER), rel=1e-9)


def test_float32_is_close_to_float64() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(64, 128, dtype=torch.float64), torch.randn(64, 256, dtype=torch.float64)
    exact = pkt(student, teacher).item()
    assert pkt(student.float(), teacher.float()).item() == pytest.approx(exact, rel=1e-3)


def test_two_samples_by_hand() -> None:
    # Cosines 0 and 1: probabilities (2/3, 1/3) and (1/2, 1/2), each row twice.
    student, teacher = torch.eye(2), torch.ones(2, 3)
    expected = 2 * (0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))) / 4
    assert pkt(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    assert pkt(STUDENT, TEACHER).item() != pytest.approx(pkt(TEACHER, STUDENT).item(), rel=1e-3)
    there = 2 * (2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.5)) / 4
    assert pkt(torch.ones(2, 3), torch.eye(2)).item() == pytest.approx(there, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 1000), st.integers(2, 9))
def test_rotated_and_scaled_embeddings_change_nothing(seed: int, scale: float, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    assert pkt(scale * teacher @ turn, teacher).abs() < 1e-7, "the same cosines"
    plain = pkt(student, teacher)
    # ε is added to the lengths as they are, so that the equality is not exact.
    assert torch.allclose(pkt(scale * student @ turn, teacher), plain, rtol=1e-4, atol=1e-7)


def test_samples_each_times_their_own_number_change_nothing() -> None:
    scales = torch.tensor([[1.0], [2], [3], [4], [5], [6], [7], [8]], dtype=torch.float64)
    assert torch.allclose(pkt(scales * STUDENT, TEACHER), pkt(STUDENT, TEACHER), rtol=1e-5, atol=0)


def test_moved_embeddings_do_change_it() -> None:
    assert pkt(TEACHER + 1, TEACHER) > 1e-4


def test_gradients_are_those_of_the_formula() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: pkt(value, TEACHER), student)


def test_opposite_samples_have_no_negative_probability_and_finite_gradients() -> None:
    # Rounding takes some of their cosines below -1.
    torch.manual_seed(0)
    rows = torch.randn(32, 2048)
    student = torch.cat([rows, -rows]).requires_grad_()
    probabilities = _probabilities(student)
    assert probabilities.min() >= 0
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(64))
    loss = pkt(student, torch.randn(64, 2048))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_an_embedding_of_zeros_is_orthogonal_to_all_and_gets_no_gradient() -> None:
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[3], teacher[5] = 0, 0
    student.requires_grad_()
    loss = pkt(student, teacher)
    assert loss.item() == pytest.approx(slow_pkt(student, teacher), rel=1e-9)
    loss.backward()
    assert student.grad is not None
    assert (student.grad[3] == 0).all()
    assert 0 < student.grad.abs().max() < 1


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_large_half_precision_embeddings_are_computed_in_float32(
    dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    student, teacher = ((300 * torch.randn(16, 2048)).to(dtype) for _ in range(2))
    student.requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        loss = pkt(student, teacher)
    (30000 * loss).backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pkt(student.double(), teacher.double()).item(), rel=1e-2)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_presets_have_the_weights_of_the_benchmark() -> None:
    assert str(parse_objective("pkt")) == "ce() + 30000*pkt()"
    assert str(parse_objective("pkt+kd")) == "ce() + 30000*pkt() + kd()"


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match=r"pkt\(\) compares samples of a batch: it needs at least 2, got 1"):
        parse_objective("pkt()").check_batch_size(1)

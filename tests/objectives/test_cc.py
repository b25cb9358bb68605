"""CC against its explicit formula (shared/spec/vision-methods.md, 3.2 item 5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import parse_objective
from limbeck.objectives.cc import CC
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

STUDENT, TEACHER = sample_signals(1, dtype=torch.float64), sample_signals(2, embedding_size=7, dtype=torch.float64)


def made(dim: int = 4) -> CC:
    objective = CC(dim=dim)
    torch.manual_seed(0)
    objective.build(STUDENT, TEACHER)
    return objective.double()


def with_identity_heads(dim: int) -> CC:
    objective = CC(dim=dim)
    objective.build(Signals(embedding=torch.zeros(2, dim)), Signals(embedding=torch.zeros(2, dim)))
    with torch.no_grad():
        for head in (objective.student_head, objective.teacher_head):
            assert head is not None
            head.weight.copy_(torch.eye(dim))
            head.bias.zero_()
    return objective


def batch_of(size: int) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64))


def cc(objective: CC, student: Tensor, teacher: Tensor) -> Tensor:
    return objective(Signals(embedding=student), Signals(embedding=teacher), batch_of(len(student)))["cc"]


def project(head: torch.nn.Linear | None, row: list[float]) -> list[float]:
    assert head is not None
    return [
        sum(w * x for w, x in zip(weights, row, strict=True)) + bias
        for weights, bias in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
    ]


def test_value_is_the_formula() -> None:
    objective = made()
    errors = []
    for s_row, t_row in zip(STUDENT.embedding.tolist(), TEACHER.embedding.tolist(), strict=True):
        s, t = project(objective.student_head, s_row), project(objective.teacher_head, t_row)
        errors.append([abs(a - b) for a, b in zip(s, t, strict=True)])
    pairs = [sum(a * b for a, b in zip(errors[i], errors[i + 1], strict=True)) for i in range(len(errors) - 1)]
    value = objective(STUDENT, TEACHER, sample_batch())["cc"].item()
    assert value == pytest.approx(sum(pairs) / 7, rel=1e-9)


def test_three_samples_by_hand() -> None:
    # Errors (1, 2), (3, 0), (1, 5): neighbours give 3 and 3.
    student = torch.tensor([[1.0, -2.0], [0.0, 4.0], [2.0, 2.0]])
    teacher = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 7.0]])
    assert cc(with_identity_heads(2), student, teacher).item() == pytest.approx(3.0)


def test_it_is_zero_where_of_each_two_neighbours_one_agrees() -> None:
    teacher = torch.randn(5, 3)
    student = teacher.clone()
    student[1::2] += 2
    assert cc(with_identity_heads(3), student, teacher) == 0
    student[2] += 1
    assert cc(with_identity_heads(3), student, teacher) > 0


def test_the_order_of_the_batch_changes_it_and_reversing_does_not() -> None:
    objective, rows = made(), torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    assert not CC.order_free
    values = [
        objective(STUDENT.map(lambda v, o=order: v[o]), TEACHER.map(lambda v, o=order: v[o]), sample_batch())["cc"]
        for order in (torch.arange(8), torch.arange(8).flip(0), rows)
    ]
    assert torch.allclose(values[0], values[1], rtol=1e-12, atol=0)
    assert not torch.isclose(values[0], values[2])


def test_embeddings_and_biases_times_a_number_scale_it_by_the_square() -> None:
    objective = made()
    plain = objective(STUDENT, TEACHER, sample_batch())["cc"]
    with torch.no_grad():
        for head in (objective.student_head, objective.teacher_head):
            assert head is not None
            head.bias *= 3
    scaled = objective(STUDENT.map(lambda v: 3 * v), TEACHER.map(lambda v: 3 * v), sample_batch())["cc"]
    assert torch.allclose(scaled, 9 * plain, rtol=1e-12, atol=0)


def test_both_heads_at_zero_are_an_optimum() -> None:
    objective = made()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.zero_()
    assert objective(STUDENT, TEACHER, sample_batch())["cc"] == 0


def test_gradients_are_those_of_the_formula_for_the_student_and_both_heads() -> None:
    objective, embedding = made(3), STUDENT.embedding[:4].clone().requires_grad_()
    learned = [embedding, *objective.parameters()]
    assert len(learned) == 5
    assert torch.autograd.gradcheck(lambda *_: cc(objective, embedding, TEACHER.embedding[:4]), learned)


def test_the_teacher_does_not_learn() -> None:
    teacher = TEACHER.embedding.clone().requires_grad_()
    cc(made(), STUDENT.embedding, teacher).backward()
    assert teacher.grad is None


def test_at_the_start_it_is_near_57_for_numbers_of_size_1() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(256, 256), torch.randn(256, 512)
    objective = CC()
    objective.build(Signals(embedding=student), Signals(embedding=teacher))
    assert cc(objective, student, teacher).item() == pytest.approx(57, abs=4)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_large_half_precision_embeddings_give_finite_values_and_gradients(
    dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    student = (300 * torch.randn(16, 2048)).to(dtype).requires_grad_()
    teacher = (300 * torch.randn(16, 2048)).to(dtype)
    objective = CC()
    objective.build(Signals(embedding=student), Signals(embedding=teacher))
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        loss = cc(objective, student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss > 1e6, "beyond the range of float16"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (student, *objective.parameters()))


def test_presets_have_the_weights_of_the_benchmark() -> None:
    assert str(parse_objective("cc")) == "ce() + 0.02*cc()"
    assert str(parse_objective("cc+kd")) == "ce() + 0.02*cc() + kd()"


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match=r"cc\(\) compares samples of a batch: it needs at least 2, got 1"):
        parse_objective("cc()").check_batch_size(1)


def test_forgotten_heads_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"cc has no heads yet: call build\(student, teacher\) before"):
        CC()(STUDENT, TEACHER, sample_batch())


@pytest.mark.parametrize("dim", [0, -1, 2.0, "4", True])
def test_the_width_is_a_whole_number(dim: Any) -> None:
    with pytest.raises(SettingError, match="dim must be a whole number of at least 1"):
        CC(dim=dim)

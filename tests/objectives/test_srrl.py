"""SRRL against its explicit formula; the teacher's classifier stays the teacher's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

SRRL = objective_class("srrl")
Rows = list[list[float]]


def inputs(n: int = 8) -> tuple[Signals, Signals, Batch]:
    student, teacher = (sample_signals(i, embedding_size=5 + i, dtype=torch.float64) for i in (1, 2))
    return student.map(lambda v: v[:n]), teacher.map(lambda v: v[:n]), sample_batch()[:n]


def made(teacher: Signals | None = None) -> Objective:
    torch.manual_seed(0)
    objective = SRRL()
    student, usual, _ = inputs()
    objective.build(student, teacher or usual)
    return objective.double()


def layers(objective: Objective) -> tuple[nn.Linear, nn.BatchNorm1d]:
    assert isinstance(objective.head, nn.Sequential)
    linear, norm, _ = objective.head
    return linear, norm


def affine(weight: Rows, rows: Rows, bias: list[float]) -> Rows:
    return [
        [sum(w * x for w, x in zip(out, row, strict=True)) + b for out, b in zip(weight, bias, strict=True)]
        for row in rows
    ]


def slow_srrl(objective: Objective, student: Signals, teacher: Signals) -> dict[str, list[float]]:
    linear, norm = layers(objective)
    rows = affine(linear.weight.tolist(), student.embedding.tolist(), [0.0] * 7)
    for column in range(7):
        values = [row[column] for row in rows]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for row in rows:
            scaled = (row[column] - mean) / math.sqrt(variance + norm.eps)
            row[column] = max(0.0, norm.weight[column].item() * scaled + norm.bias[column].item())
    weight, bias = teacher.constants["classifier.weight"], teacher.constants["classifier.bias"]
    read = affine(weight.tolist(), rows, bias.tolist())

    def distances(ours: Rows, theirs: Rows) -> list[float]:
        return [
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)
            for one, other in zip(ours, theirs, strict=True)
        ]

    return {
        "feature": distances(rows, teacher.embedding.tolist()),
        "classifier": distances(read, teacher.logits.tolist()),
    }


def test_terms_are_the_formula() -> None:
    objective = made()
    _, norm = layers(objective)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 7))
        norm.bias.copy_(torch.linspace(-0.5, 0.5, 7))
    student, teacher, batch = inputs()
    expected = slow_srrl(objective, student, teacher)
    terms = objective(student, teacher, batch)
    assert terms.keys() == expected.keys()
    for name, values in expected.items():
        assert terms[name].item() == pytest.approx(sum(values) / 8, rel=1e-9)
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    weighted = objective(student, teacher, replace(batch, weight=weight))
    for name, values in expected.items():
        mean = sum(w * value for w, value in zip(weight.tolist(), values, strict=True)) / 8
        assert weighted[name].item() == pytest.approx(mean, rel=1e-9)


def test_hand_computed() -> None:
    # One number in, behind the batch norm -1 and 1 (nearly), behind the ReLU 0 and 1.
    student = Signals(embedding=torch.tensor([[-3.0], [5.0]]), logits=torch.zeros(2, 2))
    constants = {"classifier.weight": torch.tensor([[2.0], [-1.0]]), "classifier.bias": torch.tensor([0.5, 0.0])}
    teacher = Signals(
        embedding=torch.tensor([[0.5], [3.0]]), logits=torch.tensor([[0.5, 2.0], [2.5, -1.0]]), constants=constants
    )
    objective = SRRL()
    objective.build(student, teacher)
    with torch.no_grad():
        layers(objective)[0].weight.fill_(1.0)
    terms = objective(student, teacher, sample_batch()[:2])
    assert terms["feature"].item() == pytest.approx((0.5**2 + 2.0**2) / 2, rel=1e-4)
    assert terms["classifier"].item() == pytest.approx((0 + 2.0**2) / 2 / 2, rel=1e-4)


def test_the_size_of_the_students_embedding_plays_no_part() -> None:
    objective = made()
    student, teacher, batch = inputs()
    moved = replace(student, embedding=7 * student.embedding + torch.arange(6))
    for name, value in objective(student, teacher, batch).items():
        torch.testing.assert_close(objective(moved, teacher, batch)[name], value, rtol=1e-4, atol=0)


def test_a_student_that_gives_the_teachers_embedding_costs_nothing_in_both() -> None:
    student, teacher, batch = inputs()
    objective = made()
    rows = objective.head(student.embedding).detach()
    logits = nn.functional.linear(rows, teacher.constants["classifier.weight"], teacher.constants["classifier.bias"])
    terms = objective(student, replace(teacher, embedding=rows, logits=logits), batch)
    assert max(terms.values()).item() < 1e-20


def test_gradients_of_the_student_and_of_the_head() -> None:
    objective = made()
    student, teacher, batch = inputs(4)
    learned: list[Tensor] = [student.embedding.requires_grad_(), *objective.parameters()]
    assert len(learned) == 4
    assert torch.autograd.gradcheck(lambda *_: sum(objective(student, teacher, batch).values()), learned)


def test_the_classifier_is_a_fixed_copy_that_is_saved_with_the_rest() -> None:
    student, teacher, batch = inputs()
    objective = made(teacher)
    assert {"classifier_weight", "classifier_bias"} <= objective.state_dict().keys()
    assert not any(name.startswith("classifier") for name, _ in objective.named_parameters())
    before = objective(student, teacher, batch)
    teacher.constants["classifier.weight"].add_(1.0)
    assert torch.equal(objective(student, teacher, batch)["classifier"], before["classifier"])


def test_a_classifier_without_bias_has_a_bias_of_zero() -> None:
    student, teacher, batch = inputs()
    constants = {"classifier.weight": teacher.constants["classifier.weight"]}
    zero = constants | {"classifier.bias": torch.zeros(5, dtype=torch.float64)}
    without, with_zero = (made(replace(teacher, constants=each)) for each in (constants, zero))
    assert torch.equal(without(student, teacher, batch)["classifier"], with_zero(student, teacher, batch)["classifier"])


def test_a_teacher_in_half_precision_is_read_in_full() -> None:
    student, teacher, batch = inputs()
    half = {name: value.half() for name, value in teacher.constants.items()}
    objective = SRRL()
    objective.build(student, replace(teacher, constants=half))
    assert objective.classifier_weight.dtype == torch.float32
    terms = objective(student.map(Tensor.float), teacher.map(Tensor.half), batch)
    assert all(term.dtype == torch.float32 for term in terms.values())


def test_what_it_needs_is_asked_of_the_teacher_and_not_of_the_students_classifier() -> None:
    student, teacher, batch = inputs()
    SRRL().check(replace(student, constants={}), teacher, batch)
    with pytest.raises(SignalError, match="needs the teacher's classifier: its logits must come from one linear layer"):
        SRRL().check(student, replace(teacher, constants={}), batch)


def test_an_embedding_that_the_classifier_does_not_take_is_refused() -> None:
    _, teacher, _ = inputs()
    other = replace(teacher, embedding=torch.zeros(8, 9))
    with pytest.raises(SignalError, match="the classifier takes 7 numbers and the embedding has 9"):
        made(other)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match="at least 2, got 1"):
        SRRL().check(*inputs(1))


def test_a_forgotten_head_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"no head yet: call build\(student, teacher\) before"):
        SRRL()(*inputs())


def test_the_preset_is_the_authors_sum() -> None:
    assert parse_objective("srrl").expression() == "ce() + kd() + srrl()"

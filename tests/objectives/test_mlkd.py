"""MLKD against its explicit formula; views side by side; what the public code got wrong does not happen here."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import KD, objective_class, parse_objective, presets
from limbeck.signals import Signals
from limbeck.testing import sample_batch, sample_signals

from .slow_logits import Rows, inputs, softmax, terms_of

MLKD = objective_class("mlkd")
mlkd = partial(terms_of, MLKD)
TERMS = ["instance", "batch", "class"]


def gram(rows: Rows) -> Rows:
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]


def distance(ours: Rows, theirs: Rows) -> float:
    pairs = [(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]
    return sum((a - b) ** 2 for a, b in pairs) / len(ours)


def slow_mlkd(student: Tensor, teacher: Tensor, temperatures: tuple[float, ...]) -> dict[str, float]:
    terms = dict.fromkeys(TERMS, 0.0)
    for temperature in temperatures:
        q, p = softmax(student, temperature), softmax(teacher, temperature)
        divergence = sum(
            b * math.log(b / a) for one, other in zip(q, p, strict=True) for a, b in zip(one, other, strict=True)
        )
        terms["instance"] += temperature**2 * divergence / len(q)
        terms["batch"] += distance(gram(q), gram(p))
        turned = [[list(column) for column in zip(*rows, strict=True)] for rows in (q, p)]
        terms["class"] += distance(gram(turned[0]), gram(turned[1]))
    return terms


@pytest.mark.parametrize("temperatures", [(2.0, 3.0, 4.0, 5.0, 6.0), (1,), (0.5, 4)])
def test_terms_are_the_formula(temperatures: tuple[float, ...]) -> None:
    expected = slow_mlkd(*inputs(), temperatures)
    terms = mlkd(*inputs(), temperatures=list(temperatures))
    assert list(terms) == TERMS
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9)


def test_hand_computed() -> None:
    # Teacher: two sure samples of two classes. Student: 1/2 everywhere. Grams are I and ½·J, which differ by ½ everywhere.
    teacher, student = torch.tensor([[40.0, -40.0], [-40.0, 40.0]]), torch.zeros(2, 2)
    terms = mlkd(student, teacher, temperatures=(1.0,))
    assert terms["instance"].item() == pytest.approx(math.log(2))
    assert terms["batch"].item() == pytest.approx(4 * 0.25 / 2)
    assert terms["class"].item() == pytest.approx(4 * 0.25 / 2)
    three = mlkd(torch.zeros(3, 2), teacher[[0, 1, 1]], temperatures=(1.0,))
    assert three["batch"].item() == pytest.approx(9 * 0.25 / 3), "over the samples"
    # diag(1, 2) less 3/4 everywhere, over the classes.
    assert three["class"].item() == pytest.approx((0.25**2 + 1.25**2 + 2 * 0.75**2) / 2)


def test_two_views_are_two_batches_averaged() -> None:
    student, teacher = inputs()
    halves = [slow_mlkd(student[rows], teacher[rows], (2, 6)) for rows in (slice(0, 4), slice(4, 8))]
    terms = mlkd(student, teacher, copies=2, temperatures=(2, 6))
    for name in TERMS:
        assert terms[name].item() == pytest.approx((halves[0][name] + halves[1][name]) / 2, rel=1e-9)
    together = mlkd(student, teacher, temperatures=(2, 6))
    assert abs(together["batch"] - terms["batch"]) > 1e-3, "a view's samples are compared with each other only"
    assert abs(together["class"] - terms["class"]) > 1e-3


def test_the_order_of_the_samples_within_the_views_plays_no_part() -> None:
    student, teacher = inputs()
    order = torch.tensor([2, 0, 3, 1])
    both = torch.cat([order, 4 + order])
    shuffled = mlkd(student[both], teacher[both], copies=2)
    for name, value in mlkd(student, teacher, copies=2).items():
        torch.testing.assert_close(shuffled[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [2, 3, 4, 5, 6])
def test_every_temperature_reads_the_second_view_in_every_term(temperature: float) -> None:
    # The public code reads the first view's logits at 2 and 6, and drops the second view's batch and class terms.
    student, teacher = inputs()
    student = torch.cat([teacher[:4], student[4:]]).requires_grad_()
    for value in mlkd(student, teacher, copies=2, temperatures=[temperature]).values():
        assert value > 1e-5
        (gradient,) = torch.autograd.grad(value, student, retain_graph=True)
        assert (gradient[:4].abs() < 1e-12).all()
        assert (gradient[4:].abs().sum(dim=1) > 1e-6).all()


def test_every_sample_and_class_counts_however_sure_the_teacher_is() -> None:
    # The public code's masks halve the first view's terms; the instance term here is KD at each temperature, whole.
    student, teacher = inputs()
    teacher = teacher * torch.linspace(0.1, 10, 8, dtype=torch.float64)[:, None]
    student.requires_grad_()
    signals = Signals(logits=student), Signals(logits=teacher), sample_batch()
    value = mlkd(student, teacher)["instance"]
    expected = sum(KD(temperature=temperature)(*signals)["kd"] for temperature in (2, 3, 4, 5, 6))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value, student)
    assert (gradient.abs().sum(dim=1) > 0).all()
    (gradient,) = torch.autograd.grad(mlkd(student, teacher)["class"], student)
    assert (gradient.abs() > 0).all()


def test_temperatures_add_up() -> None:
    parts = [mlkd(*inputs(), temperatures=[temperature]) for temperature in (2, 3, 4, 5, 6)]
    for name, value in mlkd(*inputs()).items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-12, atol=0)


def test_a_constant_added_to_all_logits_of_a_sample_changes_nothing() -> None:
    student, teacher = inputs()
    moved = mlkd(student + torch.arange(8)[:, None], teacher - 3)
    for name, value in mlkd(student, teacher).items():
        torch.testing.assert_close(moved[name], value, rtol=1e-9, atol=1e-12)


def test_samples_of_the_instance_term_are_weighted() -> None:
    student, teacher = inputs()
    weight = torch.tensor([2.0] * 4 + [0.5] * 4, dtype=torch.float64)
    terms = mlkd(student, teacher, weight=weight)
    first, second = (mlkd(student[rows], teacher[rows])["instance"] for rows in (slice(0, 4), slice(4, 8)))
    torch.testing.assert_close(terms["instance"], (2 * first + 0.5 * second) / 2, rtol=1e-9, atol=0)
    plain = mlkd(student, teacher)
    assert torch.equal(terms["batch"], plain["batch"])
    assert torch.equal(terms["class"], plain["class"])


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = inputs()
    assert torch.autograd.gradcheck(
        lambda z: tuple(mlkd(z, teacher, copies=2, temperatures=(1, 2)).values()), student.requires_grad_()
    )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(half: torch.dtype) -> None:
    student, teacher = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = mlkd(student.to(half), teacher.to(half))
    for name, value in mlkd(student.to(half).float(), teacher.to(half).float()).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value)


def test_a_batch_of_one_is_an_error() -> None:
    signals = sample_signals(0).map(lambda value: value[:1])
    with pytest.raises(SignalError, match="compares samples of a batch: it needs at least 2, got 1"):
        MLKD().check(signals, signals, sample_batch()[:1])


def test_the_preset_has_the_papers_numbers() -> None:
    (_, ce, _), (_, weight, part) = parse_objective(presets()["mlkd"]).entries()
    assert (ce, weight, part.arguments()) == (0.1, 0.9, {"temperatures": (2, 3, 4, 5, 6)})


def test_temperatures_are_written_and_read_again() -> None:
    assert parse_objective("mlkd(temperatures=[4])").expression() == "mlkd(temperatures=(4,))"
    assert parse_objective("mlkd(temperatures=(4,))").expression() == "mlkd(temperatures=(4,))"
    assert parse_objective("mlkd(temperatures=[2, 3, 4, 5, 6])").expression() == "mlkd()"


@pytest.mark.parametrize(
    ("temperatures", "reason"),
    [
        ([], r"temperatures must be a list of numbers such as \[2, 4\], got \[\]"),
        (4.0, "temperatures must be a list of numbers"),
        ("24", "temperatures must be a list of numbers"),
        ([2, 0], "each of temperatures must be greater than 0"),
        ([2, "4"], "each of temperatures must be a finite number"),
    ],
)
def test_temperatures_out_of_bounds_are_refused(temperatures: Any, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        MLKD(temperatures=temperatures)

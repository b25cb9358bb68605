"""R2KD against its explicit formula; a rank term with a gradient and the public one without; views side by side."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import objective_class, parse_objective, presets
from limbeck.testing import sample_batch, sample_signals

from .slow_logits import columns, inputs, softmax, terms_of

R2KD = objective_class("r2kd")
r2kd = partial(terms_of, R2KD)
TERMS = ["inter_class", "intra_class", "rank"]


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def centred(row: list[float]) -> list[float]:
    return [value - sum(row) / len(row) for value in row]


def soft_ranks(row: list[float], sharpness: float) -> list[float]:
    deviations = centred(row)
    scale = sharpness / math.sqrt(sum(d * d for d in deviations) / len(row))
    return [
        1 + sum(1 / (1 + math.exp(-scale * (x - y))) for j, y in enumerate(row) if j != i) for i, x in enumerate(row)
    ]


def slow(student: Tensor, teacher: Tensor, temperature: float, sharpness: float) -> dict[str, list[float]]:
    """The distances of each sample, class and sample."""
    ours, theirs = student.tolist(), teacher.tolist()
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    ranks = [[centred(soft_ranks(row, sharpness)) for row in logits] for logits in (ours, theirs)]
    return {
        "inter_class": [1 - cosine(a, b) for a, b in zip(p, q, strict=True)],
        "intra_class": [1 - cosine(a, b) for a, b in zip(columns(p), columns(q), strict=True)],
        "rank": [1 - cosine(a, b) for a, b in zip(*ranks, strict=True)],
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(("temperature", "sharpness"), [(0.5, 1), (1, 30), (4.0, 10.0)])
def test_terms_are_the_formula(temperature: float, sharpness: float) -> None:
    expected = slow(*inputs(), temperature, sharpness)
    terms = r2kd(*inputs(), temperature=temperature, sharpness=sharpness, value_weight=0.5, rank_weight=3)
    assert list(terms) == TERMS
    for name in ("inter_class", "intra_class"):
        assert terms[name].item() == pytest.approx(0.5 * temperature**2 * mean(expected[name]), rel=1e-9)
    assert terms["rank"].item() == pytest.approx(3 * mean(expected["rank"]), rel=1e-9)


def test_hand_computed() -> None:
    # Rows (¾, ¼) and (¼, ¾): each has cosine 6/10 with its mirror image. Ranks of two classes are right or wrong.
    student = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    terms = r2kd(student, student.flip(0), temperature=1.0, value_weight=1, rank_weight=1)
    assert terms["inter_class"].item() == pytest.approx(0.4)
    assert terms["intra_class"].item() == pytest.approx(0.4)
    assert terms["rank"].item() == pytest.approx(2)


def test_without_ranks_it_is_the_correlation_loss_alone() -> None:
    with_ranks, without = r2kd(*inputs()), r2kd(*inputs(), rank_weight=0)
    assert list(without) == ["inter_class", "intra_class"]
    expected = slow(*inputs(), 4, 10)
    total = sum(value.item() for value in without.values())
    assert total == pytest.approx(2 * 16 * (mean(expected["inter_class"]) + mean(expected["intra_class"])), rel=1e-9)
    assert all(torch.equal(without[name], with_ranks[name]) for name in without)


def test_the_papers_ranks_are_spearmans_and_have_no_gradient() -> None:
    student, teacher = inputs()
    student.requires_grad_()
    terms = r2kd(student, teacher, rank="paper")
    expected = mean([1 - spearmanr(a, b).statistic for a, b in zip(student.tolist(), teacher.tolist(), strict=True)])
    assert terms["rank"].item() == pytest.approx(2 * expected, rel=1e-9)
    assert not terms["rank"].requires_grad
    with_ranks, without = (
        torch.autograd.grad(sum(r2kd(student, teacher, rank="paper", rank_weight=weight).values()), student)[0]
        for weight in (2, 0)
    )
    assert torch.equal(with_ranks, without)


def test_soft_ranks_teach_the_teachers_order() -> None:
    student, teacher = inputs()
    student.requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(r2kd(student, teacher, value_weight=0, sharpness=3)["rank"], student)
        student = (student - gradient).detach().requires_grad_()
    assert torch.equal(student.argsort(dim=1), teacher.argsort(dim=1))
    assert r2kd(student, teacher, rank="paper")["rank"] < 1e-9


def test_soft_ranks_come_to_the_papers() -> None:
    paper = r2kd(*inputs(), rank="paper")["rank"]
    torch.testing.assert_close(r2kd(*inputs(), sharpness=1e6)["rank"], paper, rtol=1e-9, atol=0)


def test_two_views_are_two_batches_averaged() -> None:
    student, teacher = inputs()
    halves = [slow(student[rows], teacher[rows], 4, 10) for rows in (slice(0, 4), slice(4, 8))]
    terms = r2kd(student, teacher, copies=2)
    for name, weight in zip(TERMS, (32, 32, 2), strict=True):
        assert terms[name].item() == pytest.approx(weight * mean(halves[0][name] + halves[1][name]), rel=1e-9)
    together = r2kd(student, teacher)
    assert abs(together["intra_class"] - terms["intra_class"]) > 1e-3, "a column holds one view of each sample"
    # The authors add the views up.
    separate = [r2kd(student[rows], teacher[rows]) for rows in (slice(0, 4), slice(4, 8))]
    both = sum(sum(part.values()) for part in separate)
    torch.testing.assert_close(2 * sum(terms.values()), both, rtol=1e-9, atol=0)


def test_samples_are_weighted_along_the_classes() -> None:
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    terms, expected = r2kd(*inputs(), weight=weight), slow(*inputs(), 4, 10)
    for name, factor in (("inter_class", 32), ("rank", 2)):
        weighted = mean([w * value for w, value in zip(weight.tolist(), expected[name], strict=True)])
        assert terms[name].item() == pytest.approx(factor * weighted, rel=1e-9)
    assert torch.equal(terms["intra_class"], r2kd(*inputs())["intra_class"])


@given(st.integers(0, 10**6))
def test_each_term_is_between_0_and_its_bound(seed: int) -> None:
    student, teacher = 5 * torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))
    terms = r2kd(student, teacher)
    assert all(value >= 0 for value in terms.values())
    assert terms["inter_class"] <= 32 + 1e-4
    assert terms["intra_class"] <= 32 + 1e-4
    assert terms["rank"] <= 4 + 1e-5


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-10, 10))
def test_a_constant_added_to_a_samples_logits_changes_nothing_and_a_factor_no_rank(
    seed: int, scale: float, offset: float
) -> None:
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain, moved = r2kd(student, teacher), r2kd(student + offset, teacher)
    for name in TERMS:
        torch.testing.assert_close(moved[name], plain[name], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(r2kd(scale * student, teacher)["rank"], plain["rank"], rtol=1e-6, atol=1e-9)


def test_scale_is_as_documented() -> None:
    student, teacher = 4 * torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(0))
    terms = r2kd(student, teacher)
    assert terms["inter_class"].item() == pytest.approx(19, rel=0.05)
    assert terms["intra_class"].item() == pytest.approx(18, rel=0.05)
    assert terms["rank"].item() == pytest.approx(2, rel=0.05)


def test_the_size_of_a_probability_plays_no_part() -> None:
    offset = torch.tensor([0.0, 0, 0, 0, -40])
    student, teacher = (logits.float() + offset for logits in inputs())
    student.requires_grad_()
    terms = r2kd(student, teacher, temperature=1.0)
    expected = slow(student.double(), teacher.double(), 1, 10)
    assert terms["intra_class"].item() == pytest.approx(2 * mean(expected["intra_class"]), rel=1e-4)
    (gradient,) = torch.autograd.grad(sum(terms.values()), student)
    assert gradient.isfinite().all()


def test_a_student_of_equal_logits_gets_a_finite_gradient_from_the_values_alone() -> None:
    student, teacher = torch.zeros(8, 5, requires_grad=True), inputs(torch.float32)[1]
    terms = r2kd(student, teacher)
    assert terms["rank"].item() == pytest.approx(2)
    (ranks,) = torch.autograd.grad(terms["rank"], student, retain_graph=True)
    assert torch.equal(ranks, torch.zeros_like(ranks))
    (values,) = torch.autograd.grad(terms["inter_class"] + terms["intra_class"], student)
    assert values.isfinite().all()
    assert (values.abs().sum(dim=1) > 0).all()


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = inputs()
    assert torch.autograd.gradcheck(
        lambda z: tuple(r2kd(z, teacher, copies=2, sharpness=3).values()), student.requires_grad_()
    )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(half: torch.dtype) -> None:
    student, teacher = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = r2kd(student.to(half), teacher.to(half))
    for name, value in r2kd(student.to(half).float(), teacher.to(half).float()).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value)


def test_ranks_alone_do_not_couple_the_samples() -> None:
    assert list(r2kd(*inputs(), value_weight=0)) == ["rank"]
    alone, both = R2KD(value_weight=0), R2KD()
    assert (alone.batch_coupled, alone.minimum_batch) == (False, 1)
    assert (both.batch_coupled, both.minimum_batch) == (True, 2)


def test_a_batch_of_one_is_an_error() -> None:
    signals = sample_signals(0).map(lambda value: value[:1])
    with pytest.raises(SignalError, match=r"r2kd\(\) compares samples of a batch: it needs at least 2, got 1"):
        R2KD().check(signals, signals, sample_batch()[:1])


def test_the_preset_has_the_papers_numbers_and_labels_the_first_view_alone() -> None:
    (_, one, ce), (_, weight, part) = parse_objective(presets()["r2kd"]).entries()
    assert (one, weight, ce.arguments()) == (1, 1, {"label_smoothing": 0, "views": "first"})
    expected = {"value_weight": 2, "rank_weight": 2, "temperature": 4, "rank": "soft", "sharpness": 10}
    assert part.arguments() == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0}, "temperature must be greater than 0"),
        ({"sharpness": 0}, "sharpness must be greater than 0"),
        ({"value_weight": -1}, "value_weight must be at least 0"),
        ({"rank_weight": "1"}, "rank_weight must be a finite number"),
        ({"rank": "papre"}, "did you mean 'paper'"),
        ({"value_weight": 0, "rank_weight": 0}, "value_weight and rank_weight are both 0"),
        ({"value_weight": 0, "rank": "paper"}, "rank='paper' has no gradient, so there is nothing to train on"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        R2KD(**options)

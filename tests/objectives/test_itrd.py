"""ITRD against its explicit formula (shared/spec/vision-methods.md, 3.3 item 20)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import objectives, parse_objective, presets
from limbeck.objectives.itrd import ITRD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_signals

STUDENT, TEACHER = (sample_signals(seed, embedding_size=6 + seed, dtype=torch.float64).embedding for seed in (0, 1))
EQUALLY_WIDE = sample_signals(3, dtype=torch.float64).embedding
Rows = list[list[float]]


def made(teacher: Tensor = TEACHER, student: Tensor = STUDENT, **options: float) -> ITRD:
    objective = ITRD(**options)
    torch.manual_seed(0)
    objective.build(Signals(embedding=student), Signals(embedding=teacher))
    return objective.to(student.dtype)


def itrd(objective: ITRD, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(len(student), dtype=torch.int64))
    return objective(Signals(embedding=student), Signals(embedding=teacher), batch)


def with_head(weight: Tensor, **options: float) -> ITRD:
    """With a layer that is known, without a bias."""
    objective = ITRD(**{"mutual": 0.0, **options})
    objective.build(Signals(embedding=torch.zeros(2, weight.shape[1])), Signals(embedding=torch.zeros(2, len(weight))))
    assert isinstance(objective.head, torch.nn.Linear)
    objective.to(weight.dtype)
    with torch.no_grad():
        objective.head.weight.copy_(weight)
    return objective


def project(head: torch.nn.Module | None, rows: Rows) -> Rows:
    assert isinstance(head, torch.nn.Linear)
    biases = [0.0] * head.out_features if head.bias is None else head.bias.tolist()
    weights = head.weight.tolist()
    return [
        [sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(weights, biases, strict=True)]
        for row in rows
    ]


def slow_correlation(student: Rows, teacher: Rows, alpha: float) -> float:
    total, count = 0.0, len(student)
    for s, t in zip(zip(*student, strict=True), zip(*teacher, strict=True), strict=True):
        s_mean, t_mean = sum(s) / count, sum(t) / count
        s_deviation = math.sqrt(sum((value - s_mean) ** 2 for value in s) / (count - 1))
        t_deviation = math.sqrt(sum((value - t_mean) ** 2 for value in t) / (count - 1))
        products = [(a - s_mean) * (b - t_mean) / (s_deviation * t_deviation) for a, b in zip(s, t, strict=True)]
        total += abs(sum(products) / count - 1) ** (2 * alpha)
    return math.log2(total)


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(value**2 for value in a)) * math.sqrt(sum(value**2 for value in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def slow_mutual(student: Rows, teacher: Rows) -> float:
    count = range(len(student))
    ours = [[cosine(student[i], student[j]) for j in count] for i in count]
    both = [[ours[i][j] * cosine(teacher[i], teacher[j]) for j in count] for i in count]
    trace_ours, trace_both = sum(ours[i][i] for i in count), sum(both[i][i] for i in count)
    return sum((ours[i][j] / trace_ours) ** 2 - (both[i][j] / trace_both) ** 2 for i in count for j in count)


@pytest.mark.parametrize("options", [{}, {"correlation": 2.0, "mutual": 1.0, "alpha": 1.01}, {"alpha": 0.3}], ids=str)
@pytest.mark.parametrize("teacher", [TEACHER, EQUALLY_WIDE], ids=["wider teacher", "equally wide"])
def test_terms_are_the_formula(teacher: Tensor, options: dict[str, float]) -> None:
    objective = made(teacher, **options)
    projected = project(objective.head, STUDENT.tolist())
    compared = projected if teacher is TEACHER else STUDENT.tolist()
    terms = itrd(objective, STUDENT, teacher)
    assert terms.keys() == {"correlation", "mutual"}
    correlation = slow_correlation(projected, teacher.tolist(), objective.alpha)
    assert terms["correlation"].item() == pytest.approx(objective.correlation * correlation, rel=1e-9)
    mutual = slow_mutual(compared, teacher.tolist())
    assert terms["mutual"].item() == pytest.approx(objective.mutual * mutual, rel=1e-9)


def test_correlations_of_three_samples_by_hand() -> None:
    # The correlations are 1 and -1; times 2/3, as the deviations divide by 2 and the mean by 3.
    student = torch.tensor([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    teacher = torch.tensor([[10.0, 5.0], [20.0, 7.0], [30.0, 9.0]])
    value = itrd(with_head(torch.eye(2), correlation=1.0, alpha=1.0), student, teacher)["correlation"]
    assert value.item() == pytest.approx(math.log2((1 / 3) ** 2 + (5 / 3) ** 2), rel=1e-5)


def test_mutual_information_by_hand() -> None:
    # Parallel students, orthogonal teachers: 4 times (1/2)² less 2 times (1/2)².
    objective = made(torch.eye(2), torch.ones(2, 2), correlation=0, mutual=1.0)
    assert itrd(objective, torch.ones(2, 2), torch.eye(2))["mutual"].item() == pytest.approx(0.5)
    # The other way round the cosines of both are those of the student.
    assert itrd(objective, torch.eye(2), torch.ones(2, 2))["mutual"].item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(("size", "alpha"), [(3, 1.5), (8, 1.01), (64, 1.5), (64, 0.3), (1024, 20.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perfect_correlation_is_the_least_value_and_finite(size: int, alpha: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    teacher = torch.randn(size, 5, dtype=dtype)
    student = teacher.clone().requires_grad_()
    loss = itrd(with_head(torch.eye(5, dtype=dtype), correlation=1.0, alpha=alpha), student, teacher)["correlation"]
    loss.backward()
    least = math.log2(5) - 2 * alpha * math.log2(size)
    assert loss.item() == pytest.approx(least, rel=1e-9 if dtype == torch.float64 else 1e-3)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    other = itrd(with_head(torch.eye(5, dtype=dtype), correlation=1.0, alpha=alpha), teacher.roll(1, 0), teacher)
    assert other["correlation"] > loss


def test_correlation_does_not_depend_on_place_and_size_of_each_number() -> None:
    objective = made(mutual=0)
    plain = itrd(objective, STUDENT, TEACHER)["correlation"]
    scales = torch.linspace(0.1, 100, 7, dtype=torch.float64)
    assert torch.allclose(itrd(objective, STUDENT, scales * TEACHER - 5)["correlation"], plain)
    assert torch.allclose(itrd(objective, 3 * STUDENT + 2, TEACHER)["correlation"], plain)


def test_mutual_does_not_depend_on_the_size_of_each_sample_and_is_between_0_and_1() -> None:
    objective = made(EQUALLY_WIDE, correlation=0, mutual=1.0)
    plain = itrd(objective, STUDENT, EQUALLY_WIDE)["mutual"]
    scales = torch.linspace(0.1, 100, 8, dtype=torch.float64)[:, None]
    assert torch.allclose(itrd(objective, scales * STUDENT, EQUALLY_WIDE)["mutual"], plain)
    assert torch.allclose(itrd(objective, STUDENT, scales * EQUALLY_WIDE)["mutual"], plain)
    assert 0 < plain < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1234.567])
def test_a_number_that_is_constant_in_the_batch_has_correlation_0(dtype: torch.dtype, constant: float) -> None:
    student, teacher = STUDENT.to(dtype)[:7].clone(), TEACHER.to(dtype)[:7].clone()
    head = torch.zeros(7, 6, dtype=dtype)
    head[:6] = torch.eye(6)
    teacher[:, 2], student[:, 4] = constant, constant
    # Rounding alone is no variation.
    teacher[0, 2] = torch.nextafter(teacher[0, 2], torch.tensor(torch.inf, dtype=dtype))
    student.requires_grad_()
    loss = itrd(with_head(head, correlation=1.0, alpha=1.0), student, teacher)["correlation"]
    loss.backward()
    # Numbers 2 and 4 are constant, and the layer makes nothing of number 6: each adds 1.
    kept = [0, 1, 3, 5]
    rest = 2 ** slow_correlation(student[:, kept].tolist(), teacher[:, kept].tolist(), 1.0)
    assert loss.item() == pytest.approx(math.log2(rest + 3), rel=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[:, [2, 4]] == 0).all()


def test_embeddings_of_zeros_are_finite() -> None:
    for student, teacher in ((torch.zeros(4, 6), torch.randn(4, 6)), (torch.randn(4, 6), torch.zeros(4, 6))):
        objective = made(teacher, student)
        student.requires_grad_()
        loss = sum(itrd(objective, student, teacher).values())
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()
    some = STUDENT.clone()
    some[3] = 0
    assert all(value.isfinite() for value in itrd(made(), some, TEACHER).values())


@pytest.mark.parametrize("teacher", [TEACHER, EQUALLY_WIDE], ids=["wider teacher", "equally wide"])
def test_gradients_are_those_of_the_formula_for_the_student_and_the_layer(teacher: Tensor) -> None:
    objective, embedding = made(teacher), STUDENT.clone().requires_grad_()
    learned = [embedding, *objective.parameters()]
    assert torch.autograd.gradcheck(lambda *_: sum(itrd(objective, embedding, teacher).values()), learned)


@pytest.mark.parametrize(
    ("teacher", "options", "parameters"),
    [
        (TEACHER, {}, {"head.weight", "head.bias"}),
        (TEACHER, {"mutual": 0}, {"head.weight"}),
        (TEACHER, {"correlation": 0}, {"head.weight", "head.bias"}),
        (EQUALLY_WIDE, {}, {"head.weight"}),
        (EQUALLY_WIDE, {"correlation": 0}, set()),
    ],
)
def test_the_layer_has_only_what_learns(teacher: Tensor, options: dict[str, float], parameters: set[str]) -> None:
    objective = made(teacher, **options)
    assert set(dict(objective.named_parameters())) == parameters
    sum(itrd(objective, STUDENT.clone().requires_grad_(), teacher).values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-5 for p in objective.parameters())


def test_weights_are_kept_and_those_of_zero_leave_the_term_out() -> None:
    # A port of the authors of ICD adds the terms 1:1.
    one = itrd(made(correlation=1.0, mutual=1.0), STUDENT, TEACHER)
    usual = itrd(made(), STUDENT, TEACHER)
    assert torch.equal(usual["correlation"], 2 * one["correlation"])
    assert torch.equal(usual["mutual"], 0.05 * one["mutual"])
    assert itrd(made(mutual=0), STUDENT, TEACHER).keys() == {"correlation"}
    assert itrd(made(correlation=0), STUDENT, TEACHER).keys() == {"mutual"}


def test_at_the_start_the_correlation_is_near_twice_the_logarithm_of_the_width() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(64, 128), torch.randn(64, 256)
    terms = itrd(made(teacher, student), student, teacher)
    assert terms["correlation"].item() == pytest.approx(16, abs=0.5)
    assert terms["mutual"].item() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_large_half_precision_embeddings_are_computed_in_float32(
    dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    student, teacher = ((300 * torch.randn(16, width)).to(dtype) for width in (512, 2048))
    objective = ITRD()
    objective.build(Signals(embedding=student), Signals(embedding=teacher))
    student.requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        terms = itrd(objective, student, teacher)
    sum(terms.values()).backward()
    gradients = [student.grad, *(parameter.grad for parameter in objective.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    expected = itrd(objective.double(), student.double(), teacher.double())
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3)


def test_there_is_no_kd_term() -> None:
    assert str(parse_objective("itrd")) == "ce() + itrd()"
    assert [name for name in presets() if "itrd" in name] == ["itrd"]
    assert objectives()["itrd"].defaults() == {"correlation": 2.0, "mutual": 0.05, "alpha": 1.5}


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match=r"itrd\(\) compares samples of a batch: it needs at least 2, got 1"):
        parse_objective("itrd()").check_batch_size(1)


def test_a_forgotten_layer_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"itrd has no head yet: call build\(student, teacher\) before"):
        itrd(ITRD(), STUDENT, TEACHER)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"correlation": -1}, "correlation must be at least 0"),
        ({"mutual": math.nan}, "mutual must be a finite number"),
        ({"alpha": 0}, "alpha must be greater than 0"),
        ({"alpha": "1.5"}, "alpha must be a finite number"),
        ({"correlation": 0, "mutual": 0}, "correlation and mutual are both 0, so itrd has nothing to compare"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        ITRD(**options)

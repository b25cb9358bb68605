"""CKD against loops over all tuples; draws that follow from the checkpoint; a bias that differences cannot see."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective, presets
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

from .slow_logits import Rows, inputs

CKD = objective_class("ckd")


def batch_of(labels: Tensor, copies: int = 1) -> Batch:
    return Batch(torch.zeros(len(labels), 1), labels, copies=copies)


def ckd(student: Tensor, teacher: Tensor, labels: Tensor | None = None, *, copies: int = 1, **options: Any) -> Any:
    batch = batch_of(sample_batch().labels if labels is None else labels, copies)
    return CKD(**options)(Signals(logits=student), Signals(logits=teacher), batch)


def differences(rows: Rows, chosen: list[list[int]]) -> Rows:
    found = []
    for one in chosen:
        middle = len(one) - len(one) // 2
        first, second = ([rows[i] for i in group] for group in (one[:middle], one[middle:]))
        means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in (first, second)]
        found.append([a - b for a, b in zip(*means, strict=True)])
    return found


def squared(ours: Rows, theirs: Rows) -> float:
    gaps = [(a - b) ** 2 for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(gaps) / len(gaps)


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def divergence(ours: Rows, theirs: Rows) -> float:
    total = 0.0
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(log_softmax(one), log_softmax(other), strict=True)
        total += sum(math.exp(q) * (q - p) for p, q in pairs)
    return total / len(ours)


def slow(student: Tensor, teacher: Tensor, labels: Tensor, chosen: list[list[int]]) -> dict[str, float]:
    truth = [[float(c == label) for c in range(student.shape[1])] for label in labels.tolist()]
    ours, theirs, classes = (differences(rows, chosen) for rows in (student.tolist(), teacher.tolist(), truth))
    gaps = [
        sum(a - b for a, b in zip(*columns, strict=True)) / len(student)
        for columns in zip(zip(*student.tolist(), strict=True), zip(*teacher.tolist(), strict=True), strict=True)
    ]
    return {
        "classification": squared(ours, classes),
        "relation": squared(ours, theirs),
        "kd": divergence(ours, theirs),
        "bias": sum(gap * gap for gap in gaps) / len(gaps),
    }


WEIGHTS = {"classification": 2.0, "relation": 0.5, "kd": 3, "bias_weight": 0.1}


def weighted(expected: dict[str, float]) -> dict[str, float]:
    return {name: weight * value for weight, (name, value) in zip(WEIGHTS.values(), expected.items(), strict=True)}


@pytest.mark.parametrize("n", [2, 3, 4])
def test_terms_are_the_mean_over_all_tuples(n: int) -> None:
    chosen = [list(one) for one in itertools.permutations(range(8), n)]
    expected = weighted(slow(*inputs(), sample_batch().labels, chosen))
    terms = ckd(*inputs(), n=n, **WEIGHTS)
    assert list(terms) == ["classification", "relation", "kd", "bias"]
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_terms_are_the_mean_over_the_drawn_tuples(n: int) -> None:
    zero = torch.tensor(0)
    chosen = losses.drawn_tuples(8, n, 20, zero, zero).tolist()
    expected = weighted(slow(*inputs(), sample_batch().labels, chosen))
    for name, value in ckd(*inputs(), n=n, tuples=20, **WEIGHTS).items():
        assert value.item() == pytest.approx(expected[name], rel=1e-9)


def test_hand_computed() -> None:
    # Two samples of two classes: the only difference is (1, -1) between labels and (3, 1) between the teacher's logits.
    student, teacher = torch.zeros(2, 2), torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    terms = ckd(student, teacher, torch.tensor([0, 1]))
    assert terms["classification"].item() == pytest.approx(1)
    assert terms["relation"].item() == pytest.approx((9 + 1) / 2)


def test_larger_groups_say_what_pairs_say_where_all_tuples_are_meant() -> None:
    pairs, triples = ckd(*inputs(), n=2), ckd(*inputs(), n=3)
    for name, value in pairs.items():
        torch.testing.assert_close(triples[name], value * 3 / 4, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("tuples", "drawn"), [(56, False), (55, True)])
def test_tuples_are_drawn_where_there_are_more_than_asked_for(tuples: int, drawn: bool) -> None:
    objective = CKD(tuples=tuples)
    batch = sample_batch()
    objective(sample_signals(0), sample_signals(1), batch)
    assert objective.drawing.tolist() == [0, int(drawn)]


def started(expression: str = "ckd(tuples=20)", seed: int = 0) -> Objective:
    objective = parse_objective(expression)
    torch.manual_seed(seed)
    objective.build(sample_signals(0), sample_signals(1))
    return objective


def loss(objective: Objective) -> Tensor:
    return torch.stack(list(objective(sample_signals(0), sample_signals(1), sample_batch()).values())).sum()


def test_draws_go_on_where_a_checkpoint_left_them_and_no_other_random_numbers_move() -> None:
    objective = started()
    random = torch.get_rng_state()
    values = [loss(objective) for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), random)
    assert len({value.item() for value in values}) == 4
    again = started()
    for expected in values[:2]:
        assert torch.equal(loss(again), expected)
    resumed = started(seed=1)
    resumed.load_state_dict(copy.deepcopy(again.state_dict()))
    for expected in values[2:]:
        assert torch.equal(loss(resumed), expected)


def test_another_seed_draws_other_tuples_and_evaluation_draws_the_same_again() -> None:
    assert loss(started(seed=0)) != loss(started(seed=1))
    objective = started().eval()
    assert torch.equal(loss(objective), loss(objective))


@pytest.mark.parametrize("options", [{}, {"n": 3}, {"kd": 1}, {"n": 3, "tuples": 20, "kd": 1}])
def test_the_bias_of_a_final_layer_gets_no_gradient(options: dict[str, Any]) -> None:
    embedding, teacher = sample_signals(0, dtype=torch.float64).embedding, inputs()[1]
    classifier = nn.Linear(6, 5).double()
    sum(ckd(classifier(embedding), teacher, **options).values()).backward()
    assert classifier.weight.grad.abs().max() > 1e-3
    # Zero by algebra: what is left is the rounding of a sum of numbers that cancel.
    assert classifier.bias.grad.abs().max() < 1e-15


def test_the_bias_weight_brings_the_mean_logits_to_the_teachers() -> None:
    student, teacher = inputs()
    moved = teacher + torch.arange(5, dtype=torch.float64)
    terms = ckd(moved, teacher, bias_weight=0.1)
    assert terms["relation"].item() == pytest.approx(0, abs=1e-12)
    assert terms["bias"].item() == pytest.approx(0.1 * (0 + 1 + 4 + 9 + 16) / 5)
    bias = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(sum(ckd(student + bias, teacher, bias_weight=0.1).values()), bias)
    expected = 0.1 * 2 * (student - teacher).mean(dim=0) / 5
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 3))
def test_a_vector_added_to_all_logits_changes_nothing(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    vector = 10 * torch.randn(5, generator=generator, dtype=torch.float64)
    for options in ({"kd": 1}, {"kd": 1, "tuples": 20}):
        plain = ckd(student, teacher, n=n, **options)
        for name, value in ckd(student + vector, teacher - vector, n=n, **options).items():
            torch.testing.assert_close(value, plain[name], rtol=1e-9, atol=1e-12)
            assert value >= 0


@pytest.mark.parametrize("tuples", [100_000, 5])
def test_two_views_are_two_batches_averaged_over_the_same_tuples(tuples: int) -> None:
    student, teacher = inputs()
    labels = sample_batch().labels[:4].repeat(2)
    options = {"kd": 1, "bias_weight": 1, "tuples": tuples}
    views = [ckd(student[rows], teacher[rows], labels[rows], **options) for rows in (slice(0, 4), slice(4, 8))]
    for name, value in ckd(student, teacher, labels, copies=2, **options).items():
        torch.testing.assert_close(value, (views[0][name] + views[1][name]) / 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("options", [{"n": 2}, {"n": 3, "tuples": 20}])
def test_gradients_are_those_of_the_formula(options: dict[str, Any]) -> None:
    student, teacher = inputs()
    everything = {"kd": 1, "bias_weight": 1, **options}
    assert torch.autograd.gradcheck(lambda z: tuple(ckd(z, teacher, **everything).values()), student.requires_grad_())


def test_scale_is_as_documented() -> None:
    teacher = 4 * torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64)
    terms = ckd(torch.zeros(64, 100), teacher, labels)
    frequencies = 1 - 64 * (1 / 64) ** 2
    assert terms["classification"].item() == pytest.approx(2 * frequencies / 100 * 64 / 63, rel=1e-5)
    assert terms["classification"].item() == pytest.approx(0.02, rel=0.05)
    assert terms["relation"].item() == pytest.approx(32, rel=0.05)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(half: torch.dtype) -> None:
    student, teacher = (logits.to(half) for logits in inputs())
    options = {"kd": 1, "bias_weight": 1, "tuples": 20}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = ckd(student, teacher, **options)
    for name, value in ckd(student.float(), teacher.float(), **options).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value)


def test_what_is_not_compared_is_not_asked_for() -> None:
    without_labels, without_teacher = CKD(classification=0), CKD(relation=0)
    assert without_labels.needs == {"logits"}
    assert without_labels.zero_when_equal
    assert not CKD().zero_when_equal
    assert not without_teacher.needs_teacher
    batch = sample_batch()
    without_teacher.check(sample_signals(0), Signals(), batch)
    assert list(without_teacher(sample_signals(0), Signals(), batch)) == ["classification"]


def test_views_of_fewer_samples_than_a_tuple_are_an_error() -> None:
    signals = sample_signals(0)
    four = replace(sample_batch(), copies=4)
    CKD(n=2).check(signals, signals, four)
    with pytest.raises(SignalError, match=r"ckd\(n=3\) compares samples of a batch: it needs at least 3, got 2"):
        CKD(n=3).check(signals, signals, four)


def test_the_preset_is_the_loss_alone_with_the_papers_numbers() -> None:
    ((_, weight, part),) = parse_objective(presets()["ckd"]).entries()
    expected = {"n": 2, "tuples": 100_000, "classification": 1, "relation": 1, "kd": 0, "bias_weight": 0}
    assert (weight, part.arguments()) == (1, expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n": 1}, "n must be a whole number of at least 2"),
        ({"tuples": 0}, "tuples must be a whole number of at least 1"),
        ({"relation": -1}, "relation must be at least 0"),
        ({"bias_weight": "1"}, "bias_weight must be a finite number"),
        ({"classification": 0, "relation": 0}, "classification, relation and kd are all 0"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        CKD(**options)

"""LSKD against its explicit formula (shared/spec/vision-methods.md, section 3.3), and as a wrapper of another objective."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import CE, ICD, KD, InitialStage, Objective, WeightedSum, parse_objective, presets
from limbeck.objectives.crd import CRD
from limbeck.objectives.lskd import LSKD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

Rows = list[list[float]]


def logits(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(objective: Objective, student: Tensor, teacher: Tensor) -> Tensor:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(student.shape[:-1], dtype=torch.int64))
    return torch.stack(list(objective(Signals(logits=student), Signals(logits=teacher), batch).values())).sum()


def slow_standardised(row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - 1))
    return [(value - mean) / (deviation + 1e-7) for value in row]


def slow_kd(student: Rows, teacher: Rows, temperature: float) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = ([math.exp(value / temperature) for value in row] for row in (t, s))
        p, q = ([value / sum(row) for value in row] for row in (p, q))
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


def slow_lskd(student: Tensor, teacher: Tensor, temperature: float) -> float:
    rows = [[slow_standardised(row) for row in z.reshape(-1, z.shape[-1]).tolist()] for z in (student, teacher)]
    return slow_kd(rows[0], rows[1], temperature)


@pytest.mark.parametrize("temperature", [1, 2.0, 4])
@pytest.mark.parametrize("shape", [(6, 5), (1, 2), (3, 2, 5)])
def test_around_kd_it_is_the_formula_at_every_sample_or_position(shape: tuple[int, ...], temperature: float) -> None:
    student, teacher = logits(0, *shape), logits(1, *shape)
    value = loss(LSKD(KD(temperature=temperature)), student, teacher)
    assert value.item() == pytest.approx(slow_lskd(student, teacher, temperature), rel=1e-9)


def test_around_a_sum_it_is_the_sum_of_the_formulas() -> None:
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)
    value = loss(0.5 * LSKD(KD(temperature=1) + 3 * KD(temperature=2)), student, teacher)
    expected = 0.5 * (slow_lskd(student, teacher, 1) + 3 * slow_lskd(student, teacher, 2))
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_preset_is_the_authors_setting() -> None:
    assert parse_objective("lskd").weights == (0.1, 9.0)
    assert presets()["lskd"] == "0.1*ce + 9*lskd(kd(temperature=2))"
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)
    assert torch.equal(loss(LSKD(), student, teacher), loss(LSKD(KD(temperature=2)), student, teacher))


@given(st.integers(0, 10**6), st.floats(0.1, 50), st.floats(-20, 20))
def test_size_and_offset_of_either_networks_logits_do_not_matter(seed: int, size: float, offset: float) -> None:
    student, teacher = logits(seed, 3, 4), logits(seed + 1, 3, 4)
    plain = loss(LSKD(), student, teacher)
    # The 1e-7 beside the deviation is all that is left of the size.
    torch.testing.assert_close(loss(LSKD(), size * student + offset, teacher), plain, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(loss(LSKD(), student, size * teacher + offset), plain, rtol=1e-4, atol=1e-7)
    assert loss(LSKD(), size * teacher + offset, teacher).abs() < 1e-9


def test_without_it_size_does_matter() -> None:
    student, teacher = logits(0, 3, 4), logits(1, 3, 4)
    assert not torch.allclose(loss(KD(), 2 * student, teacher), loss(KD(), student, teacher), rtol=0.01)


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher = logits(0, 3, 4).requires_grad_(), logits(1, 3, 4)
    assert torch.autograd.gradcheck(lambda z: loss(LSKD(), z, teacher), student)


def test_a_classifier_that_starts_at_zero_has_finite_gradients() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    value = loss(LSKD(), student, logits(1, 2, 5).float())
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_logits_of_300_in_half_precision_are_standardised_in_float32(half: torch.dtype) -> None:
    student, teacher = (100 * logits(0, 4, 5)).to(half), (100 * logits(1, 4, 5)).to(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(LSKD(), student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(slow_lskd(student.double(), teacher.double(), 2.0), rel=1e-5)


# -- as a wrapper ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("lskd()", "lskd(kd(temperature=2.0))"),
        ("lskd(kd)", "lskd(kd())"),
        ("2*lskd(kd(temperature=3))", "2*lskd(kd(temperature=3))"),
        ("lskd(1*kd)", "lskd(kd())"),
        ("lskd(0.5*kd + kd(temperature=1))", "lskd(0.5*kd() + kd(temperature=1))"),
        ("ce + lskd(lskd(kd))", "ce() + lskd(lskd(kd()))"),
    ],
)
def test_it_is_written_as_it_is_read(text: str, written: str) -> None:
    objective = parse_objective(text)
    assert objective.expression() == str(objective) == written
    assert parse_objective(written).expression() == written


def test_terms_carry_both_names() -> None:
    student, teacher, batch = sample_signals(1), sample_signals(2), sample_batch()
    assert list(parse_objective("ce + lskd(kd)")(student, teacher, batch)) == ["ce", "lskd.kd"]
    assert list(parse_objective("lskd(kd + kd(temperature=1))")(student, teacher, batch)) == [
        "lskd.kd1.kd",
        "lskd.kd2.kd",
    ]


class Inner(Objective):
    """Does all that an objective can, and writes down what reaches it."""

    name = "inner"
    needs = frozenset({"logits", "labels", "index"})
    batch_coupled = local_negatives = zero_when_equal = per_position = equal_channels = True
    order_free = False
    minimum_batch = 3
    dead_parameters = frozenset({"still"})
    only_initial = True

    def __init__(self) -> None:
        super().__init__()
        self.still = nn.Parameter(torch.zeros(1))
        self.calls: list[Any] = []

    def set_training_labels(self, labels: Tensor) -> None:
        self.calls.append(("labels", labels))

    def build(self, student: Signals, teacher: Signals) -> None:
        self.calls.append(("build", student.logits, teacher.logits))

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        raise SignalError("inner is never content.")

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        return {"gap": (student.logits - teacher.logits).square().mean()}

    def initial_stage(self) -> InitialStage:
        return InitialStage(KD(), 4, ("objective",), 0.5)

    def start_epoch(self, epoch: int) -> None:
        self.calls.append(("epoch", epoch))

    def after_step(self) -> None:
        self.calls.append(("after",))

    def monitors(self) -> dict[str, Tensor]:
        return {"seen": torch.ones(())}

    def no_weight_decay(self) -> set[str]:
        return {"still"}


def test_what_the_objective_inside_declares_holds_outside() -> None:
    inner, outer = Inner(), LSKD(Inner())
    traits = ("needs", "batch_coupled", "local_negatives", "zero_when_equal", "per_position", "order_free")
    for trait in (*traits, "minimum_batch", "equal_channels", "only_initial", "needs_teacher"):
        assert getattr(outer, trait) == getattr(inner, trait), trait
    assert outer.no_weight_decay() == outer.dead_parameters == {"objective.still"}
    assert outer.dead_parameters <= dict(outer.named_parameters()).keys()
    plain = LSKD()
    assert not any((plain.batch_coupled, plain.local_negatives, plain.only_initial, plain.dead_parameters))
    assert plain.order_free
    assert plain.initial_stage() is None
    assert plain.minimum_batch == 1


def test_what_is_told_outside_reaches_the_objective_inside() -> None:
    inner = Inner()
    outer = WeightedSum([(1.0, LSKD(inner))])
    labels, student, teacher = torch.tensor([1, 2]), sample_signals(1), sample_signals(2)
    outer.set_training_labels(labels)
    outer.build(student, teacher)
    outer.start_epoch(3)
    outer.after_step()
    assert [call[0] for call in inner.calls] == ["labels", "build", "epoch", "after"]
    assert inner.calls[0][1] is labels
    for seen, signals in zip(inner.calls[1][1:], (student, teacher), strict=True):
        for row, logits_of in zip(seen.tolist(), signals.logits.tolist(), strict=True):
            assert row == pytest.approx(slow_standardised(logits_of), rel=1e-4, abs=1e-5)
    assert inner.calls[2][1] == 3
    assert {name: value.item() for name, value in outer.monitors().items()} == {"lskd.seen": 1.0}
    with pytest.raises(SignalError, match="inner is never content"):
        outer.check(student, teacher, sample_batch())


def test_the_initial_stage_of_the_objective_inside_is_on_standardised_logits_too() -> None:
    stage = LSKD(Inner()).initial_stage()
    assert stage is not None
    assert isinstance(stage.objective, LSKD)
    assert str(stage.objective) == "lskd(kd())"
    assert (stage.epochs, stage.trains, stage.lr) == (4, ("objective",), 0.5)


@pytest.mark.parametrize("inside", [CE(), ICD(), CRD(), KD() + ICD(), KD() + 2 * CRD(), CE() + CE(), 0 * KD()], ids=str)
def test_an_objective_that_compares_no_logits_is_refused(inside: Objective) -> None:
    with pytest.raises(SettingError, match="objectives that compare logits must stand inside, and nothing else, got"):
        LSKD(inside)


def test_logits_that_are_missing_are_a_sentence() -> None:
    with pytest.raises(SignalError, match=r"lskd\(kd\(temperature=2\.0\)\) needs the student's logits"):
        LSKD().check(Signals(embedding=torch.ones(8, 2)), sample_signals(2), sample_batch())

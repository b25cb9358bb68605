"""CRD against its explicit formula (shared/spec/vision-methods.md, section 3.2), its draw of negatives and its banks."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import parse_objective, presets
from limbeck.objectives.crd import CRD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

Rows = list[list[float]]

# 14 rows: five of class 0, four of 1, three of 2, two of 3; two indices belong to no training sample.
LABELS = torch.tensor([0, 1, 2, 3, 0, -1, 1, 2, 0, 1, 0, 3, 2, -1, 1, 0])


def made(*, dtype: torch.dtype = torch.float64, labels: Tensor = LABELS, **options: Any) -> CRD:
    objective = CRD(**{"dim": 4, "negatives": 3, **options})
    torch.manual_seed(0)
    objective.set_training_labels(labels)
    objective.build(sample_signals(1), sample_signals(2, embedding_size=7))
    return objective.to(dtype)


def inputs(seed: int = 0, index: tuple[int, ...] = (0, 1, 2, 3, 4, 6), **more: Any) -> tuple[Signals, Signals, Batch]:
    student = sample_signals(seed + 1, dtype=torch.float64).map(lambda v: v[: len(index)])
    teacher = sample_signals(seed + 2, embedding_size=7, dtype=torch.float64).map(lambda v: v[: len(index)])
    places = torch.tensor(index)
    return student, teacher, Batch(torch.zeros(len(index), 1), LABELS[places], index=places, **more)


def terms_of(objective: CRD, *arguments: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return objective(*arguments)


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def embed(head: nn.Linear | None, embedding: Tensor | None) -> Rows:
    assert head is not None
    assert embedding is not None
    pairs = list(zip(head.weight.tolist(), head.bias.tolist(), strict=True))
    return [unit([dot(weights, row) + bias for weights, bias in pairs]) for row in embedding.tolist()]


class SlowCRD:
    """The formula with loops, from the heads and the first banks of an objective."""

    def __init__(self, objective: CRD) -> None:
        self.objective = objective
        self.student_bank, self.teacher_bank = objective.student_bank.tolist(), objective.teacher_bank.tolist()
        self.Z = objective.log_normaliser.exp().tolist()
        present = [i for i, label in enumerate(LABELS.tolist()) if label >= 0]
        self.row_of = {index: row for row, index in enumerate(present)}
        self.class_of = [int(LABELS[index]) for index in present]

    def negatives(self, order: list[int], label: int) -> list[int]:
        return [row for row in order if self.class_of[row] != label][: self.objective.negatives]

    def contrast(self, z: list[float], bank: Rows, own: int, negatives: list[int], Z: float) -> float:
        K, n, tau = self.objective.negatives, len(bank), self.objective.temperature
        o = [math.exp(dot(bank[row], z) / tau) / Z for row in (own, *negatives)]
        loss = math.log(o[0] / (o[0] + K / n + 1e-7))
        for value in o[1:]:
            loss += K / len(negatives) * math.log((K / n) / (value + K / n + 1e-7))
        return -loss

    def step(self, student: Signals, teacher: Signals, batch: Batch, order: list[int]) -> dict[str, float]:
        z_s = embed(self.objective.student_head, student.embedding)
        z_t = embed(self.objective.teacher_head, teacher.embedding)
        own = [self.row_of[index] for index in batch.index.tolist()]
        sides = {"student": 0.0, "teacher": 0.0}
        for i, label in enumerate(batch.labels.tolist()):
            negatives = self.negatives(order, label)
            sides["student"] += self.contrast(z_s[i], self.teacher_bank, own[i], negatives, self.Z[0]) / len(own)
            sides["teacher"] += self.contrast(z_t[i], self.student_bank, own[i], negatives, self.Z[1]) / len(own)
        m = self.objective.momentum
        for bank, z in ((self.student_bank, z_s), (self.teacher_bank, z_t)):
            for row, new in zip(own, z, strict=True):
                bank[row] = unit([m * a + (1 - m) * b for a, b in zip(bank[row], new, strict=True)])
        return sides


def drawn(n: int = 14) -> list[int]:
    torch.manual_seed(7)
    return torch.randperm(n).tolist()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"negatives": 1},
    {"negatives": 9, "temperature": 0.5},
    # Nine rows are of other classes than 0, eleven and twelve of others than 2 and 3: some see all there are, some not.
    {"negatives": 11},
    {"negatives": 12, "momentum": 0.0},
    {"negatives": 100, "momentum": 0.9, "temperature": 0.2},
    {"dim": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_terms_and_banks_are_the_formula_over_three_steps(options: dict[str, Any]) -> None:
    objective = made(**options)
    slow = SlowCRD(objective)
    # The second batch meets samples of the first again, whose rows are renewed by then.
    for seed, index in enumerate([(0, 1, 2, 3, 4, 6), (6, 7, 8, 0, 10, 15), (3, 11)]):
        arguments = inputs(seed, index)
        terms = terms_of(objective, *arguments)
        expected = slow.step(*arguments, drawn())
        assert terms.keys() == expected.keys()
        for name, value in expected.items():
            assert terms[name].item() == pytest.approx(value, rel=1e-9)
        for bank, rows in ((objective.student_bank, slow.student_bank), (objective.teacher_bank, slow.teacher_bank)):
            torch.testing.assert_close(bank, torch.tensor(rows, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_one_sample_and_one_negative_by_hand() -> None:
    objective = CRD(negatives=1, temperature=0.5, momentum=0.5, dim=2)
    objective.set_training_labels(torch.tensor([0, 1]))
    one = Signals(embedding=torch.tensor([[2.0, 0.0]]))
    objective.build(one, one)
    with torch.no_grad():
        for head in (objective.student_head, objective.teacher_head):
            assert head is not None
            head.weight.copy_(torch.eye(2))
            head.bias.zero_()
        objective.teacher_bank.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        objective.log_normaliser.zero_()
    batch = Batch(torch.zeros(1, 1), torch.tensor([0]), index=torch.tensor([0]))
    value = objective(one, one, batch)["student"].item()
    # The own row is orthogonal, the other equal to (1, 0): o_0 = e^0 = 1, o_1 = e^2, K/n = 1/2.
    assert value == pytest.approx(-math.log(1 / 1.5) - math.log(0.5 / (math.exp(2) + 0.5)), rel=1e-6)
    halfway = math.sqrt(0.5)
    torch.testing.assert_close(objective.teacher_bank, torch.tensor([[halfway, halfway], [1.0, 0.0]]))


def test_gradients_are_those_of_the_formula_for_the_embedding_and_both_heads() -> None:
    objective = made(dim=3).eval()
    student, teacher, batch = inputs()
    learned = [student.embedding.requires_grad_(), *objective.parameters()]
    assert len(learned) == 5
    assert torch.autograd.gradcheck(lambda *_: sum(terms_of(objective, student, teacher, batch).values()), learned)


# -- the draw -------------------------------------------------------------------------------------------------------------

SMALL = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])


def rows_seen(objective: CRD, student: Signals, teacher: Signals, batch: Batch, sample: int) -> set[int]:
    """Rows of the teacher's bank that the loss of one sample reads, but its own: those that get a gradient."""
    weight = torch.zeros(len(batch)).double()
    weight[sample] = 1.0
    bank = objective.teacher_bank.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(student, teacher, replace(batch, weight=weight))["student"], bank)
    seen = set(gradient.abs().sum(dim=1).nonzero().flatten().tolist())
    own = int(batch.index[sample])
    assert own in seen
    return seen - {own}


def small(negatives: int) -> tuple[CRD, Signals, Signals, Batch]:
    objective = made(labels=SMALL, negatives=negatives, dim=2).eval()
    student, teacher, _ = inputs(index=(0, 4, 7))
    places = torch.tensor([0, 4, 7])
    return objective, student, teacher, Batch(torch.zeros(3, 1), SMALL[places], index=places)


@pytest.mark.parametrize(
    ("sample", "critical"),
    # The 99.9 % quantiles of χ² at 9, 19 and 34 degrees of freedom: 5, 6 and 7 rows are of other classes.
    [(0, 27.88), (1, 43.82), (2, 65.25)],
)
def test_negatives_of_a_sample_are_any_k_rows_of_other_classes_equally_often(sample: int, critical: float) -> None:
    objective, student, teacher, batch = small(3)
    label = int(batch.labels[sample])
    subsets = list(combinations([row for row, other in enumerate(SMALL.tolist()) if other != label], 3))
    torch.manual_seed(11)
    draws = 400
    counts = Counter(tuple(sorted(rows_seen(objective, student, teacher, batch, sample))) for _ in range(draws))
    assert counts.keys() <= set(subsets), "each draw is of three different rows, none of the sample's own class"
    expected = draws / len(subsets)
    assert sum((counts[subset] - expected) ** 2 / expected for subset in subsets) < critical


@pytest.mark.parametrize("negatives", [1, 2, 4, 5, 6, 7, 50])
def test_the_number_of_negatives_is_exact_for_every_class(negatives: int) -> None:
    objective, student, teacher, batch = small(negatives)
    for seed in range(10):
        torch.manual_seed(seed)
        for sample, others in enumerate((5, 6, 7)):
            assert len(rows_seen(objective, student, teacher, batch, sample)) == min(negatives, others)


def test_each_step_draws_anew() -> None:
    objective, student, teacher, batch = small(3)
    torch.manual_seed(0)
    assert len({tuple(rows_seen(objective, student, teacher, batch, 2)) for _ in range(10)}) > 3


def test_few_rows_of_other_classes_count_as_a_draw_of_k_with_replacement_on_average() -> None:
    student, teacher, batch = inputs(index=(0,))
    for negatives in (9, 45, 900):
        objective = made(negatives=negatives)
        slow = SlowCRD(objective)
        z = embed(objective.student_head, student.embedding)[0]
        o = [math.exp(dot(row, z) / 0.07) / slow.Z[0] for row in slow.teacher_bank]
        noise = negatives / 14
        others = [math.log((o[row] + noise + 1e-7) / noise) for row, label in enumerate(slow.class_of) if label != 0]
        expected = negatives * sum(others) / len(others) - math.log(o[0] / (o[0] + noise + 1e-7))
        assert len(others) == 9
        assert terms_of(objective, student, teacher, batch)["student"].item() == pytest.approx(expected, rel=1e-9)


# -- the banks ------------------------------------------------------------------------------------------------------------


def test_a_row_belongs_to_a_training_sample_and_absent_indices_have_none() -> None:
    objective = made()
    assert objective.student_bank.shape == objective.teacher_bank.shape == (14, 4)
    before = objective.student_bank.clone()
    terms_of(objective, *inputs(index=(4, 6, 15)))
    changed = (objective.student_bank != before).any(dim=1).nonzero().flatten().tolist()
    # Index 5 is no training sample, so 6 has row 5; 5 and 13 are missing before 15.
    assert changed == [4, 5, 13]


def test_rows_start_as_the_authors_start_them() -> None:
    objective = made(dim=128, labels=torch.arange(300) % 7)
    bound = math.sqrt(3 / 128)
    for bank in (objective.student_bank, objective.teacher_bank):
        assert bank.abs().max() <= bound
        assert bank.mean().abs() < 0.01 * bound
        assert bank.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)
    assert not torch.equal(objective.student_bank, objective.teacher_bank)


def test_the_positive_is_the_remembered_row_and_not_the_pair_of_this_step() -> None:
    objective = made()
    student, teacher, batch = inputs()
    terms = terms_of(copy.deepcopy(objective), student, teacher, batch)
    other = terms_of(objective, student, teacher.map(lambda v: v.flip(0)), batch)
    assert torch.equal(terms["student"], other["student"])
    assert not torch.allclose(terms["teacher"], other["teacher"])


def test_each_term_teaches_one_head() -> None:
    objective = made()
    student, teacher, batch = inputs()
    terms = terms_of(objective, student, teacher, batch)
    assert objective.student_head is not None
    assert objective.teacher_head is not None
    heads = (objective.student_head.weight, objective.teacher_head.weight)
    for name, learns in (("student", (True, False)), ("teacher", (False, True))):
        gradients = torch.autograd.grad(terms[name], heads, allow_unused=True)
        assert tuple(gradient is not None for gradient in gradients) == learns


def test_rows_that_are_renewed_do_not_disturb_the_gradient_of_the_step_before() -> None:
    gradients = []
    for training in (True, False):
        objective = made().train(training)
        student, teacher, batch = inputs()
        embedding = student.embedding.requires_grad_()
        gradients.append(torch.autograd.grad(terms_of(objective, student, teacher, batch)["student"], embedding)[0])
    assert torch.equal(*gradients)


def test_nothing_is_remembered_in_eval_mode_and_rows_carry_no_graph() -> None:
    objective = made().eval()
    before = copy.deepcopy(objective.state_dict())
    terms_of(objective, *inputs())
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    terms_of(objective.train(), *inputs())
    assert not torch.equal(objective.student_bank, before["student_bank"])
    assert not objective.student_bank.requires_grad
    assert not objective.teacher_bank.requires_grad


def test_of_several_views_the_first_is_remembered() -> None:
    viewed, plain = made(), made()
    student, teacher, batch = inputs(index=(0, 1, 2, 0, 1, 2), copies=2)
    terms_of(viewed, student, teacher, batch)
    terms_of(plain, student.map(lambda v: v[:3]), teacher.map(lambda v: v[:3]), batch[:3])
    # Products of six rows and of three round differently on some processors.
    torch.testing.assert_close(viewed.student_bank, plain.student_bank, rtol=0, atol=1e-14)
    torch.testing.assert_close(viewed.teacher_bank, plain.teacher_bank, rtol=0, atol=1e-14)


def test_the_weight_of_a_sample_is_that_of_its_loss_and_not_of_its_row() -> None:
    plain, weighted = made(), made()
    student, teacher, batch = inputs()
    weight = torch.tensor([2.0, 0, 0, 0, 0, 0]).double()
    terms = terms_of(weighted, student, teacher, replace(batch, weight=weight))
    alone = terms_of(plain, student.map(lambda v: v[:1]), teacher.map(lambda v: v[:1]), batch[:1])
    for name in terms:
        assert terms[name].item() == pytest.approx(alone[name].item() * 2 / 6, rel=1e-9)
    terms_of(plain, student, teacher, batch)
    torch.testing.assert_close(weighted.teacher_bank[1:], plain.teacher_bank[1:])


def test_the_normaliser_is_the_mean_over_the_probe_and_the_whole_bank_and_never_changes() -> None:
    objective = made(dtype=torch.float32, labels=torch.arange(20) % 3)
    probe = sample_signals(1), sample_signals(2, embedding_size=7)
    z_s, z_t = embed(objective.student_head, probe[0].embedding), embed(objective.teacher_head, probe[1].embedding)
    for side, (z, bank) in enumerate(((z_s, objective.teacher_bank), (z_t, objective.student_bank))):
        values = [math.exp(dot(row, one) / 0.07) for row in bank.tolist() for one in z]
        expected = sum(values) / len(values) * 20
        assert objective.log_normaliser[side].exp().item() == pytest.approx(expected, rel=1e-4)
    before = objective.log_normaliser.clone()
    batch = replace(sample_batch(), labels=torch.arange(8) % 3)
    for _ in range(3):
        sum(objective(*probe, batch).values()).backward()
    assert torch.equal(objective.log_normaliser, before)


def test_banks_and_normaliser_are_in_the_checkpoint_and_what_the_data_says_is_not() -> None:
    objective = made()
    terms_of(objective, *inputs())
    state = objective.state_dict()
    assert {"student_bank", "teacher_bank", "log_normaliser"} < state.keys()
    assert not {"row_of_index", "class_of_row"} & state.keys()
    again = CRD(dim=4, negatives=3)
    torch.manual_seed(99)
    again.set_training_labels(LABELS)
    again.build(sample_signals(5), sample_signals(6, embedding_size=7))
    again.double().load_state_dict(state)
    for name, value in terms_of(objective, *inputs(3)).items():
        assert torch.equal(terms_of(copy.deepcopy(again), *inputs(3))[name], value)


# -- numbers that could leave their range --------------------------------------------------------------------------------


def test_at_the_start_each_side_is_11_and_a_half() -> None:
    objective = CRD()
    torch.manual_seed(0)
    objective.set_training_labels(torch.arange(50_000) % 100)
    student, teacher = Signals(embedding=torch.randn(64, 64)), Signals(embedding=torch.randn(64, 128))
    objective.build(student, teacher)
    index = torch.randperm(50_000)[:64]
    with torch.no_grad():
        terms = objective(student, teacher, Batch(torch.zeros(64, 1), index % 100, index=index))
    for value in terms.values():
        assert value.item() == pytest.approx(11.5, abs=0.5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_large_numbers_in_half_precision_stay_finite(half: torch.dtype) -> None:
    objective = made(dtype=torch.float32)
    student, teacher, batch = inputs()
    student, teacher = (s.map(lambda v: (300 * v).to(half).requires_grad_()) for s in (student, teacher))
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = terms_of(objective, student, teacher, batch)
        loss = sum(terms.values())
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert objective.student_bank.dtype == torch.float32
    assert student.embedding.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize("temperature", [0.02, 0.01, 0.001])
def test_small_temperatures_stay_finite_in_float32(temperature: float) -> None:
    # exp(1/0.01) is beyond float32; the loss holds its logarithm.
    objective, exact = made(dtype=torch.float32, temperature=temperature), made(temperature=temperature)
    student, teacher, batch = inputs()
    for _ in range(20):
        value = sum(terms_of(objective, student.map(Tensor.float), teacher.map(Tensor.float), batch).values())
        expected = sum(terms_of(exact, student, teacher, batch).values())
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    value.backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_teacher_in_half_precision_teaches_a_student_in_full(half: torch.dtype) -> None:
    student, teacher, batch = inputs()
    loss = terms_of(made(dtype=torch.float32), student.map(Tensor.float), teacher.map(lambda v: v.to(half)), batch)
    assert {value.dtype for value in loss.values()} == {torch.float32}


# -- what does not fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [5, 13, 16, 400, -1])
def test_a_sample_that_is_not_in_the_training_set_is_a_sentence(index: int) -> None:
    objective = made()
    student, teacher, batch = inputs()
    objective.check(student, teacher, batch)
    strange = replace(batch, index=torch.tensor([0, 1, 2, 3, 4, index]))
    with pytest.raises(
        SignalError, match=r"a row for each of 14 training samples, and the batch holds samples that are"
    ):
        objective.check(student, teacher, strange)


def test_a_batch_without_indices_is_a_sentence() -> None:
    student, teacher, batch = inputs()
    with pytest.raises(SignalError, match=r"crd\(negatives=3, dim=4\) needs each sample's index"):
        made().check(student, teacher, replace(batch, index=None))


@pytest.mark.parametrize("labels", [[0, 0, 0], [2, -1, 2], [-1, -1]])
def test_a_training_set_of_one_class_is_a_sentence(labels: list[int]) -> None:
    with pytest.raises(SignalError, match="the training set has only one class"):
        made(labels=torch.tensor(labels))


def test_a_forgotten_training_set_and_forgotten_heads_are_errors() -> None:
    with pytest.raises(SettingError, match=r"call set_training_labels\(labels\) before build"):
        CRD().build(sample_signals(1), sample_signals(2, embedding_size=7))
    with pytest.raises(SettingError, match="no heads yet"):
        CRD()(*inputs())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"negatives": 0}, "negatives must be a whole number of at least 1, got 0"),
        ({"negatives": 4.0}, r"negatives must be a whole number of at least 1, got 4\.0"),
        ({"negatives": True}, "negatives must be a whole number"),
        ({"dim": 0}, "dim must be a whole number of at least 1"),
        ({"temperature": 0}, r"temperature must be greater than 0\.0"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"momentum": -0.1}, r"momentum must be at least 0"),
        ({"momentum": 1.0}, r"momentum must be at most 0\.999999"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        CRD(**options)


def test_presets_have_the_weight_of_the_benchmark() -> None:
    assert presets()["crd"] == "ce + 0.8*crd()"
    assert parse_objective("crd+kd").weights == (1.0, 0.8, 1.0)
    assert CRD().arguments() == {"negatives": 16384, "temperature": 0.07, "momentum": 0.5, "dim": 128}

"""On-the-fly native ensemble against its explicit formula, its limit cases, and a branch that diverges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives import ONE, Branches, parse_objective
from limbeck.signals import Signals
from limbeck.testing import sample_batch, sample_signals

BATCH = sample_batch()


def signals(branches: int, seed: int = 0) -> Signals:
    return sample_signals(seed, peers=branches - 1, dtype=torch.float64)


def built(branches: int = 3, temperature: float = 3.0, warmup_epochs: int = 80) -> ONE:
    objective = ONE(branches=branches, temperature=temperature, warmup_epochs=warmup_epochs)
    torch.manual_seed(0)
    objective.build(signals(branches), Signals())
    return objective.double()


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    total = sum(math.exp(value / temperature) for value in row)
    return [math.exp(value / temperature) / total for value in row]


def slow_gate(objective: ONE, trunk: Tensor) -> list[list[float]]:
    """Each sample's share of each branch; the batch norm's scale and shift are those of its start."""
    assert objective.gate is not None
    weights = next(objective.gate.parameters()).tolist()
    means = [[sum(sum(row) for row in channel) / 64 for channel in sample] for sample in trunk.tolist()]
    scores = [[sum(w * x for w, x in zip(row, mean, strict=True)) for row in weights] for mean in means]
    normed = [[0.0] * len(weights) for _ in scores]
    for branch in range(len(weights)):
        column = [row[branch] for row in scores]
        mean = sum(column) / 8
        variance = sum((value - mean) ** 2 for value in column) / 8
        for i, value in enumerate(column):
            normed[i][branch] = max(0.0, (value - mean) / math.sqrt(variance + 1e-5))
    return [softmax(row) for row in normed]


def slow(objective: ONE, student: Signals, weight: float) -> dict[str, float]:
    assert student.logits is not None
    assert student.peers is not None
    assert student.trunk is not None
    gate, tau = slow_gate(objective, student.trunk), objective.temperature
    names = ["", *(f"branch{m}." for m in range(1, objective.branches))]
    terms = dict.fromkeys(["ensemble.ce", *(name + kind for name in names for kind in ("ce", "from_ensemble"))], 0.0)
    for i in range(8):
        rows = [student.logits[i].tolist(), *student.peers[i].tolist()]
        ensemble = [sum(g * row[c] for g, row in zip(gate[i], rows, strict=True)) for c in range(5)]
        label = int(BATCH.labels[i])
        terms["ensemble.ce"] -= math.log(softmax(ensemble)[label]) / 8
        target = softmax(ensemble, tau)
        for name, row in zip(names, rows, strict=True):
            terms[f"{name}ce"] -= math.log(softmax(row)[label]) / 8
            divergence = sum(a * math.log(a / b) for a, b in zip(target, softmax(row, tau), strict=True))
            terms[f"{name}from_ensemble"] += weight * tau**2 * divergence / 8
    return terms


@pytest.mark.parametrize("branches", [2, 3, 5])
@pytest.mark.parametrize("epoch", [1, 41, 80, 81, 200])
def test_value_is_the_formula(branches: int, epoch: int) -> None:
    objective, student = built(branches, temperature=2.5), signals(branches)
    objective.start_epoch(epoch)
    t = epoch - 1
    expected = slow(objective, student, math.exp(-5 * (1 - t / 80) ** 2) if t < 80 else 1.0)
    terms = objective(student, Signals(), BATCH)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        # The weight of the epoch is a number of float32.
        assert terms[name].item() == pytest.approx(value, rel=1e-6), name


def test_without_warm_up_the_divergences_count_from_the_start() -> None:
    objective = built(warmup_epochs=0)
    assert objective.monitors()["weight"] == 1
    objective.start_epoch(1)
    assert objective.monitors()["weight"] == 1


def test_one_branch_is_twice_the_cross_entropy() -> None:
    objective = built(branches=1)
    student = sample_signals(0, dtype=torch.float64).map(lambda value: value.detach().requires_grad_())
    objective.start_epoch(100)
    terms = objective(student, Signals(), BATCH)
    assert student.logits is not None
    assert [*objective.parameters()] == []
    assert objective.companions() is None
    twice = 2 * losses.cross_entropy(student.logits, BATCH.labels).mean()
    total = torch.stack(list(terms.values())).sum()
    torch.testing.assert_close(total, twice, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, student.logits)[0] for value in (total, twice)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_branches_that_agree_are_their_ensemble() -> None:
    student = signals(3)
    assert student.logits is not None
    same = replace(student, peers=student.logits[:, None].repeat(1, 2, 1))
    terms = built(warmup_epochs=0)(same, Signals(), BATCH)
    for name in ("ensemble.ce", "branch1.ce", "branch2.ce"):
        assert terms[name].item() == pytest.approx(terms["ce"].item(), rel=1e-9)
    assert all(abs(terms[f"{name}from_ensemble"].item()) < 1e-9 for name in ("", "branch1.", "branch2."))


def test_the_ensemble_is_a_target_for_the_branches_and_learns_the_labels() -> None:
    objective = built(warmup_epochs=0)
    student = signals(3).map(lambda value: value.detach().requires_grad_())
    assert objective.gate is not None
    watched = [student.logits, student.peers, student.trunk, *objective.gate.parameters()]

    def reached(name: str) -> list[bool]:
        found = torch.autograd.grad(objective(student, Signals(), BATCH)[name], watched, allow_unused=True)
        return [g is not None and bool(g.abs().sum() > 0) for g in found]

    assert reached("from_ensemble") == [True, False, False, False, False, False]
    assert reached("branch1.from_ensemble") == [False, True, False, False, False, False]
    assert reached("ensemble.ce") == [True] * 6


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e31])
def test_a_branch_that_diverges_is_left_out_of_the_ensemble_too(bad: float) -> None:
    student = signals(3)
    assert student.peers is not None
    broken = student.peers.clone()
    broken[0, 1, 0] = bad
    student = replace(student, peers=broken).map(lambda value: value.detach().requires_grad_())
    objective = built(warmup_epochs=0)
    terms = objective(student, Signals(), BATCH)
    assert terms["branch2.ce"] == terms["branch2.from_ensemble"] == 0
    torch.stack(list(terms.values())).sum().backward()
    for value in (*student.tensors().values(), *objective.parameters()):
        assert value.grad is None or value.grad.isfinite().all()
    assert student.peers is not None
    assert student.peers.grad is not None
    assert student.peers.grad[:, 1].abs().sum() == 0
    # Its share goes to the others: the same with a branch that says anything else.
    other = broken.clone()
    other[0, 1, 0] = -bad
    again = built(warmup_epochs=0)(replace(student.detach(), peers=other), Signals(), BATCH)
    assert {name: value.item() for name, value in terms.items()} == {
        name: value.item() for name, value in again.items()
    }
    assert objective.monitors()["branch2.left_out"] == 1


def test_in_eval_mode_the_gate_has_its_running_statistics() -> None:
    objective, student = built(), signals(3)
    trained = objective(student, Signals(), BATCH)["ensemble.ce"]
    objective.eval()
    norm = objective.gate[1] if objective.gate is not None else None
    assert isinstance(norm, nn.BatchNorm1d)
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    assert objective(student, Signals(), BATCH)["ensemble.ce"] != trained
    assert before is not None
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("branches=0", "branches must be a whole number of at least 1"),
        ("branches=2.5", "branches must be a whole number"),
        ("temperature=0", "temperature must be greater than 0"),
        ("warmup_epochs=-1", "warmup_epochs must be a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(f"one({arguments})")


def test_it_asks_for_its_branches_in_words_and_checks_that_they_are_there() -> None:
    assert parse_objective("one").companions() == Branches(2)
    assert parse_objective("ce + 0.5*one(branches=4)").companions() == Branches(3)
    with pytest.raises(SignalError, match=r"one\(\) has 2 branches beside the student, and there are 3"):
        ONE().check(signals(4), Signals(), BATCH)
    with pytest.raises(SignalError, match=r"one\(\) needs the student's peers"):
        ONE().check(sample_signals(0), Signals(), BATCH)
    with pytest.raises(SettingError, match="one has no gate yet"):
        ONE()(signals(3), Signals(), BATCH)

"""Deep mutual learning against its explicit formula, what sends gradients to whom, and a peer that diverges."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import DML, Peers, parse_objective
from limbeck.signals import Signals
from limbeck.testing import sample_batch, sample_signals

BATCH = sample_batch()


def built(peers: str = "same") -> DML:
    objective = DML(peers=peers)
    objective.build(Signals(logits=torch.zeros(8, 5)), Signals())
    return objective


def signals(count: int, seed: int = 0) -> Signals:
    return sample_signals(seed, peers=count, dtype=torch.float64)


def probabilities(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def slow(student: Signals, weight: list[float]) -> dict[str, float]:
    assert student.logits is not None
    assert student.peers is not None
    count = 1 + student.peers.shape[1]
    terms: dict[str, float] = {}
    for k in range(count):
        labels, mutual = 0.0, 0.0
        for i in range(8):
            rows = [student.logits[i].tolist(), *student.peers[i].tolist()]
            p = [probabilities(row) for row in rows]
            labels += -weight[i] * math.log(p[k][int(BATCH.labels[i])]) / 8
            for other in range(count):
                if other != k:
                    divergence = sum(a * math.log(a / b) for a, b in zip(p[other], p[k], strict=True))
                    mutual += weight[i] * divergence / (count - 1) / 8
        prefix = f"peer{k}." if k else ""
        terms |= {f"{prefix}ce": labels, f"{prefix}mutual": mutual}
    return terms


@pytest.mark.parametrize("peers", ["same", "same, resnet14", "resnet8, same, convnet(widths=[4, 8])"])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_is_the_formula(peers: str, weighted: bool) -> None:
    objective = built(peers)
    asked = objective.companions()
    student = signals(asked.count)
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64) if weighted else torch.ones(8, dtype=torch.float64)
    terms = objective(student, Signals(), replace(BATCH, weight=weight if weighted else None))
    expected = slow(student, weight.tolist())
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9), name


def test_networks_that_agree_have_nothing_to_teach() -> None:
    student = signals(2)
    assert student.logits is not None
    same = replace(student, peers=student.logits[:, None].repeat(1, 2, 1))
    terms = built("same, same")(same, Signals(), BATCH)
    assert all(abs(terms[name].item()) < 1e-12 for name in ("mutual", "peer1.mutual", "peer2.mutual"))
    assert terms["ce"].item() == pytest.approx(terms["peer2.ce"].item(), rel=1e-12)


def gradients(terms: dict[str, Tensor], names: tuple[str, ...], student: Signals) -> tuple[Tensor, Tensor]:
    total = torch.stack([terms[name] for name in names]).sum()
    assert student.logits is not None
    assert student.peers is not None
    found = torch.autograd.grad(total, (student.logits, student.peers), allow_unused=True)
    ours, theirs = (torch.zeros(()) if g is None else g for g in found)
    return ours, theirs


def test_what_another_says_is_a_target() -> None:
    student = signals(2).map(lambda value: value.detach().requires_grad_())
    terms = built("same, same")(student, Signals(), BATCH)
    ours, theirs = gradients(terms, ("ce", "mutual"), student)
    assert ours.abs().sum() > 0
    assert theirs.abs().sum() == 0
    terms = built("same, same")(student, Signals(), BATCH)
    ours, theirs = gradients(terms, ("peer2.ce", "peer2.mutual"), student)
    assert ours.abs().sum() == theirs[:, 0].abs().sum() == 0
    assert theirs[:, 1].abs().sum() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e31])
def test_a_peer_that_diverges_is_left_out(bad: float) -> None:
    student = signals(2)
    assert student.peers is not None
    broken = student.peers.clone()
    broken[3, 0, 1] = bad
    student = replace(student, peers=broken).map(lambda value: value.detach().requires_grad_())
    terms = built("same, same")(student, Signals(), BATCH)
    alone = replace(student, peers=student.peers[:, 1:] if student.peers is not None else None)
    without = built()(alone, Signals(), BATCH)
    assert terms["peer1.ce"] == terms["peer1.mutual"] == 0
    pairs = {"ce": "ce", "mutual": "mutual", "peer2.ce": "peer1.ce", "peer2.mutual": "peer1.mutual"}
    for name, other in pairs.items():
        assert terms[name].item() == pytest.approx(without[other].item(), rel=1e-12)
    torch.stack(list(terms.values())).sum().backward()
    assert student.logits is not None
    assert student.peers is not None
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()
    assert student.peers.grad is not None
    assert student.peers.grad.isfinite().all()
    assert student.peers.grad[:, 0].abs().sum() == 0


def test_a_student_whose_peers_are_all_gone_learns_the_labels() -> None:
    student = signals(1)
    assert student.peers is not None
    terms = built()(replace(student, peers=student.peers * math.nan), Signals(), BATCH)
    assert terms["ce"] > 0
    assert [terms[name].item() for name in ("mutual", "peer1.ce", "peer1.mutual")] == [0, 0, 0]


def test_a_student_that_diverges_itself_is_not_hidden() -> None:
    student = signals(1)
    assert student.logits is not None
    terms = built()(replace(student, logits=student.logits * math.nan), Signals(), BATCH)
    assert terms["ce"].isnan()


def test_the_metrics_tell_accuracies_and_warn_once_of_a_peer_left_out(caplog: pytest.LogCaptureFixture) -> None:
    objective, student = built("same, same"), signals(2)
    assert student.peers is not None
    right = torch.nn.functional.one_hot(BATCH.labels, 5).double()
    wrong = right.roll(1, dims=1)
    wrong[:2] = right[:2]
    objective(replace(student, peers=torch.stack([right, wrong], dim=1)), Signals(), BATCH)
    assert {name: value.item() for name, value in objective.monitors().items()} == {
        "peer1.accuracy": 1.0,
        "peer2.accuracy": 0.25,
    }
    objective.eval()
    objective(student, Signals(), BATCH)
    assert objective.monitors()["peer1.accuracy"] == 0  # nothing seen in training since then
    objective.train()
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        for steps in (1, 2):
            objective(replace(student, peers=torch.stack([right, wrong * math.inf], dim=1)), Signals(), BATCH)
            assert objective.monitors()["peer2.left_out"] == steps
    assert [record.getMessage().partition(" were ")[0] for record in caplog.records] == [
        "dml: some logits of peer2 (1)"
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("peers=''", "at least one network must be named"),
        ("peers='same,,resnet8'", "nothing stands between two of the commas"),
        ("peers=3", "expected text such as"),
        ("peer='same'", "unknown argument of dml 'peer'; did you mean 'peers'"),
    ],
)
def test_bad_arguments_are_refused(arguments: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(f"dml({arguments})")


def test_it_asks_for_its_peers_in_words() -> None:
    assert parse_objective("dml").companions() == Peers(("same",))
    text = "ce() + dml(peers='resnet20, convnet(widths=[4, 8])')"
    assert parse_objective(text).companions() == Peers(("resnet20", "convnet(widths=[4, 8])"))
    assert parse_objective(text).expression() == text
    assert parse_objective("dml + 0.5*dml()").companions() == Peers(("same",))
    with pytest.raises(SettingError, match=r"dml\(\) and one\(\) each ask for other networks beside the student"):
        parse_objective("dml + one()").companions()


@pytest.mark.parametrize("call", ["forward", "check"])
def test_what_is_missing_is_said(call: str) -> None:
    objective: Any = DML()
    error, sentence = (
        (SettingError, "dml is not built yet")
        if call == "forward"
        else (SignalError, r"dml\(\) needs the student's peers: no networks learn beside it")
    )
    with pytest.raises(error, match=sentence):
        getattr(objective, call)(sample_signals(0), Signals(), BATCH)

"""Online knowledge distillation against its explicit formula, and what sends gradients to whom."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import OKD, Adapted
from limbeck.signals import IGNORED, Batch, Signals
from limbeck.testing import sample_batch, sample_signals, sample_tokens


def probabilities(row: Tensor) -> list[float]:
    total = sum(math.exp(value) for value in row.tolist())
    return [math.exp(value) / total for value in row.tolist()]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow(student: Signals, teacher: Signals, batch: Batch, **settings: Any) -> dict[str, float]:
    """Terms and figures, row by row; a row is a sample, or a position that counts."""
    assert student.logits is not None
    assert student.peers is not None
    assert teacher.logits is not None
    places = [
        place
        for place in torch.cartesian_prod(*(torch.arange(n) for n in batch.labels.shape)).view(-1, batch.labels.ndim)
        if batch.labels[tuple(place)] != IGNORED
    ]
    found = dict.fromkeys(("okd", "adapted.ce", "adapted.kl", "drift", "adapted_nll"), 0.0)
    for place in places:
        i, rest = int(place[0]), tuple(place[1:].tolist())
        ours, adapted, first = (
            probabilities(logits[(i, *rest)]) for logits in (student.logits, student.peers[:, 0], teacher.logits)
        )
        weight = 1.0 if batch.weight is None else float(batch.weight[i])
        forward, reverse = divergence(adapted, ours), divergence(ours, adapted)
        nll = -math.log(adapted[int(batch.labels[(i, *rest)])])
        follow = reverse if settings.get("direction", "reverse") == "reverse" else forward
        lead = reverse if settings.get("teacher_direction", "reverse") == "reverse" else forward
        found["okd"] += weight * settings.get("weight", 1.0) * follow / len(places)
        found["adapted.ce"] += weight * nll / len(places)
        found["adapted.kl"] += weight * settings.get("teacher_weight", 1.0) * lead / len(places)
        found["drift"] += divergence(adapted, first) / len(places)
        found["adapted_nll"] += nll / len(places)
    return found


def classified() -> tuple[Signals, Signals, Batch]:
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    student, teacher = (sample_signals(seed, peers=1, dtype=torch.float64) for seed in (1, 2))
    return student, teacher, replace(sample_batch(), weight=weight)


@pytest.mark.parametrize("make", [classified, lambda: sample_tokens(torch.float64, peers=1)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight": 0.3, "teacher_weight": 2.5},
        {"direction": "forward"},
        {"teacher_direction": "forward"},
        {"variant": "ce"},
        {"variant": "kl", "rank": 2},
    ],
)
def test_value_is_the_formula(make: Any, settings: dict[str, Any]) -> None:
    student, teacher, batch = make()
    objective = OKD(**settings).double()
    terms, expected = objective(student, teacher, batch), slow(student, teacher, batch, **settings)
    wanted = {"both": {"adapted.ce", "adapted.kl"}, "ce": {"adapted.ce"}, "kl": {"adapted.kl"}}[objective.variant]
    assert terms.keys() == {"okd", *wanted}
    told = objective.monitors()
    for name, value in {**terms, **told}.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-9), name
    assert all(value == 0 for value in objective.monitors().values()), "figures are of the steps since the last call"


def test_what_one_says_is_a_target_for_the_other() -> None:
    student, teacher, batch = sample_tokens(torch.float64, peers=1)
    student = student.map(lambda value: value.requires_grad_())
    assert student.logits is not None
    assert student.peers is not None
    for term in ("okd", "adapted.ce", "adapted.kl"):
        value = OKD()(student, teacher, batch)[term]
        ours, theirs = torch.autograd.grad(value, (student.logits, student.peers), allow_unused=True)
        reached, spared = (ours, theirs) if term == "okd" else (theirs, ours)
        assert reached.abs().sum() > 0, term
        assert spared is None or spared.abs().sum() == 0, term


def test_an_adapted_teacher_that_is_the_teacher_has_not_drifted() -> None:
    student, teacher, batch = sample_tokens(peers=1)
    assert teacher.logits is not None
    objective = OKD()
    objective(replace(student, peers=teacher.logits[:, None]), teacher, batch)
    assert objective.monitors()["drift"].abs() < 1e-6


def test_figures_are_of_training_alone() -> None:
    objective = OKD().eval()
    objective(*sample_tokens(peers=1))
    assert objective.watched.tolist() == [0, 0, 0]


def test_it_asks_for_the_teacher_with_adapters_in_words() -> None:
    assert OKD(rank=3).companions() == Adapted(3)
    student, teacher, batch = sample_tokens()
    with pytest.raises(SignalError, match="needs the student's peers"):
        OKD().check(student, teacher, batch)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank": 0}, "rank must be"),
        ({"weight": 0}, "weight must be"),
        ({"teacher_weight": math.nan}, "teacher_weight must be"),
        ({"direction": "revers"}, "did you mean 'reverse'"),
        ({"teacher_direction": "both"}, "teacher_direction"),
        ({"variant": "none"}, "variant"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        OKD(**settings)

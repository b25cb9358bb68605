"""BSS against its explicit formula, and the schedules of its two weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import objective_class, parse_objective
from limbeck.signals import Signals
from limbeck.testing import sample_batch, sample_signals

BSS = objective_class("bss")


def probabilities(logits: list[float], temperature: float) -> list[float]:
    total = sum(math.exp(value / temperature) for value in logits)
    return [math.exp(value / temperature) / total for value in logits]


def soft(student: list[float], teacher: list[float], temperature: float) -> float:
    pairs = zip(probabilities(teacher, temperature), probabilities(student, temperature), strict=True)
    return -sum(p * math.log(q) for p, q in pairs)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_explicit_formula(temperature: float) -> None:
    student, teacher = (sample_signals(seed, dtype=torch.float64) for seed in (1, 2))
    objective = BSS(temperature=temperature)
    objective.set_epochs(80)
    objective.start_epoch(21)
    terms = objective(student, teacher, sample_batch())
    assert isinstance(student.logits, Tensor)
    assert isinstance(student.attacked, Tensor)
    rows = [(part.logits.tolist(), part.attacked.tolist()) for part in (student, teacher)]  # type: ignore[union-attr]
    clean = mean([soft(s, t, temperature) for s, t in zip(rows[0][0], rows[1][0], strict=True)])
    attacked = mean([soft(rows[0][1][i], rows[1][1][i], temperature) for i in (0, 2, 5)])
    assert float(terms["clean"]) == pytest.approx((max(3 * (1 - 20 / 80), 0) + 1) * clean, rel=1e-5)
    assert float(terms["boundary"]) == pytest.approx(max(2 * (1 - 4 / 3 * 20 / 80), 0) * attacked, rel=1e-5)


def test_images_that_were_not_attacked_do_not_count() -> None:
    student, teacher = sample_signals(1), sample_signals(2)
    attacked = sample_batch().attacked
    assert attacked is not None
    assert student.attacked is not None
    other = replace(student, attacked=student.attacked.where((attacked >= 0)[:, None], 100.0))
    term, same = (BSS()(each, teacher, sample_batch())["boundary"] for each in (student, other))
    assert torch.equal(term, same)
    none = replace(sample_batch(), attacked=torch.full((8,), -1))
    assert BSS()(student, teacher, none)["boundary"] == 0
    assert BSS()(student, teacher, replace(sample_batch(), attacked=None))["boundary"] == 0


@pytest.mark.parametrize(("epochs", "stage"), [(None, 40), (40, 7)])
def test_the_weights_fall_over_the_run(epochs: int | None, stage: int) -> None:
    objective = BSS(epochs=epochs)
    objective.set_epochs(stage)
    found = []
    for epoch in range(1, 41):
        objective.start_epoch(epoch)
        weights = {name: float(value) for name, value in objective.monitors().items()}
        found.append((weights["weight.clean"], weights["weight.boundary"], objective.attack is not None))
    for e, (clean, boundary, attacks) in enumerate(found):
        # As published, with two of its 80 epochs for each of 40.
        assert clean == pytest.approx(max(3 * (1 - 2 * e / 80), 0) + 1)
        assert boundary == pytest.approx(max(2 * (1 - 4 / 3 * 2 * e / 80), 0), abs=1e-6)
        assert attacks == (e < 30)


def test_its_attack_is_that_of_its_arguments() -> None:
    attack = parse_objective("ce + bss(samples=3, steps=2, step=0.1, epsilon=0.01, clip=4)").attack
    assert attack is not None
    assert (attack.samples, attack.steps, attack.step, attack.epsilon, attack.clip) == (3, 2, 0.1, 0.01, 4)
    assert parse_objective("ce + bss(boundary=0)").attack is None
    with pytest.raises(SettingError, match="different attacks"):
        _ = parse_objective("bss() + bss(steps=2)").attack


def test_signals_without_the_attacked_images_are_an_error() -> None:
    plain = Signals(logits=sample_signals(1).logits)
    with pytest.raises(SettingError, match="attacked images"):
        BSS()(plain, plain, sample_batch())


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"samples": 0}, {"steps": 0}, {"clip": 0}, {"epsilon": 0}, {"epochs": 0}, {"clean": -1}],
)
def test_arguments_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(options))):
        BSS(**options)

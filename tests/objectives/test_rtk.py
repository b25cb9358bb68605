"""The reconstruction of RTK against its explicit formula, its filter, and what keeps it from the trivial solution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError
from limbeck.objectives import parse_objective
from limbeck.objectives.rtk import RTK
from limbeck.signals import Signals

from .slow_stages import (
    SIZE,
    STUDENT,
    TEACHER,
    Shape,
    batch,
    distances,
    made,
    network,
    of_any_depths,
    slow_distance,
    slow_similarities,
    softmax,
)

seeds = st.integers(0, 10**6)


def slow_weights(similarities: list[float], keys: int, floor: float) -> list[float]:
    best = sorted(range(len(similarities)), key=lambda t: -similarities[t])[:keys]
    shares = dict(zip(best, softmax([similarities[t] for t in best]), strict=True))
    return [(1 - floor) * shares[t] + floor / len(best) if t in shares else 0.0 for t in range(len(similarities))]


@torch.no_grad()
def slow_rtk(objective: RTK, student: Signals, teacher: Signals) -> float:
    ours, theirs = list(student.features.values()), list(teacher.features.values())
    value = 0.0
    found = [[[0.0] * len(theirs)] * len(ours)] * SIZE
    if objective.heads is not None:
        found = slow_similarities(objective.heads, ours, theirs)
    for sample, similarities in enumerate(found):
        for one, row in zip(ours, similarities, strict=True):
            weights = slow_weights(row, objective.keys, objective.entropy_floor)
            for other, weight in zip(theirs, weights, strict=True):
                value += weight * slow_distance(one, other, sample) / SIZE
    return value


@pytest.mark.parametrize("options", ["", "keys=3", "keys=9", "entropy_floor=0.7", "keys=1, detach_attention=True"])
@of_any_depths
def test_value_is_the_formula(student: list[Shape], teacher: list[Shape], options: str) -> None:
    one, other = network(0, student), network(1, teacher)
    objective = made(f"rtk({options}, dim=5)" if options else "rtk(dim=5)", one, other)
    expected = slow_rtk(objective, one, other)
    assert objective(one, other, batch())["rtk"].item() == pytest.approx(expected, rel=1e-9)


def test_all_keys_are_afd_with_the_networks_exchanged() -> None:
    # Maps of one size, since a pair is compared at the size of the teacher's.
    one, other = network(0, [(2, 4), (3, 4)]), network(1, [(4, 4), (2, 4), (3, 4)])
    rtk, afd = made("rtk(keys=3, dim=5)", one, other), made("afd(dim=5)", other, one)
    afd.heads.load_state_dict(rtk.heads.state_dict())
    torch.testing.assert_close(rtk(one, other, batch())["rtk"], afd(other, one, batch())["afd"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["learned", "uniform", "diagonal"])
def test_one_stage_each_is_the_mean_squared_distance_weighted_by_sample(kind: str) -> None:
    student, teacher = network(0, [(2, 4)]), network(1, [(3, 2)])
    weight = torch.linspace(0.5, 2, SIZE, dtype=torch.float64)
    found = made(f"rtk(attention={kind!r})", student, teacher)(student, teacher, batch(weight=weight))["rtk"]
    one, other = (next(iter(signals.features.values())) for signals in (student, teacher))
    expected = sum(w * slow_distance(one, other, sample) for sample, w in enumerate(weight.tolist())) / SIZE
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_all_keys_with_equal_weights_are_the_mean_over_pairs() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    expected = len(STUDENT) * distances(student, teacher).mean()
    uniform = made("rtk(attention='uniform')", student, teacher)
    level = made("rtk(keys=3, detach_attention=True, entropy_floor=1)", student, teacher)
    mute = made("rtk(keys=3)", student, teacher)
    with torch.no_grad():
        for parameter in mute.parameters():
            parameter.zero_()
    for objective in (uniform, level, mute):
        torch.testing.assert_close(objective(student, teacher, batch())["rtk"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("students", "teachers", "partners"), [(3, 3, [0, 1, 2]), (3, 2, [0, 0, 1]), (2, 3, [1, 2]), (2, 4, [1, 3])]
)
def test_diagonal_attention_is_the_stage_at_the_nearest_depth(
    students: int, teachers: int, partners: list[int]
) -> None:
    student, teacher = network(0, [(2, 4)] * students), network(1, [(3, 4)] * teachers)
    objective = made("rtk(attention='diagonal')", student, teacher)
    assert objective.fixed.argmax(dim=1).tolist() == partners
    expected = sum(distances(student, teacher)[s, t] for s, t in enumerate(partners))
    torch.testing.assert_close(objective(student, teacher, batch())["rtk"], expected, rtol=1e-6, atol=0)


def test_equal_networks_differ_off_the_diagonal_alone() -> None:
    signals = network(0, [(2, 4), (3, 2)])
    assert made("rtk(attention='diagonal')", signals, signals)(signals, signals, batch())["rtk"].item() == 0
    assert made("rtk()", signals, signals)(signals, signals, batch())["rtk"].item() > 0


def weights_of(objective: Any, student: Signals, teacher: Signals) -> Tensor:
    weights: Tensor = objective._weights(list(student.features.values()), list(teacher.features.values()))
    return weights


@given(seeds, st.integers(2, 4), st.floats(0, 0.99))
def test_weights_are_shares_of_as_many_stages_as_keys_and_keep_the_floor(seed: int, keys: int, floor: float) -> None:
    student, teacher = network(seed, STUDENT), network(seed + 1, [(2, 2)] * 4)
    weights = weights_of(made(f"rtk(keys={keys}, entropy_floor={floor!r}, dim=4)", student, teacher), student, teacher)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(SIZE, 2, dtype=torch.float64))
    assert ((weights > 0).sum(dim=-1) <= keys).all()
    assert (torch.special.entr(weights).sum(dim=-1) >= floor * math.log(keys) - 1e-9).all()


@given(seeds)
def test_what_is_kept_are_the_most_similar(seed: int) -> None:
    student, teacher = network(seed, STUDENT), network(seed + 1, [(2, 2)] * 4)
    objective = made("rtk(dim=4)", student, teacher)
    similar = objective.heads(list(student.features.values()), list(teacher.features.values()))
    weights = objective.divide(similar)
    assert similar[weights > 0].numel() == 2 * 2 * SIZE
    least, most = similar.where(weights > 0, math.inf).amin(-1), similar.where(weights == 0, -math.inf).amax(-1)
    assume(not torch.equal(least, most))
    assert (least >= most).all()


def test_gradients_are_those_of_the_values() -> None:
    student, teacher = network(0, [(1, 2), (2, 2)], 3), network(1, [(1, 2), (2, 1), (1, 1)], 3)
    objective = made("rtk(dim=3, entropy_floor=0.2)", student, teacher)
    learned = [value.requires_grad_() for value in student.features.values()] + list(objective.parameters())
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch(3))["rtk"], learned)


def test_detached_attention_is_a_constant_and_its_heads_are_no_parameters() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made("rtk(detach_attention=True)", student, teacher)
    assert list(objective.parameters()) == []
    assert "heads.forms.0.weight" in objective.state_dict()
    learned = [value.requires_grad_() for value in student.features.values()]
    found = torch.autograd.grad(objective(student, teacher, batch())["rtk"], learned)
    weights = weights_of(objective, student, teacher)
    assert not weights.requires_grad
    each = losses.attention_distances(learned, list(teacher.features.values()))
    expected = torch.autograd.grad((weights * each).sum(dim=(1, 2)).mean(), learned)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_learned_attention_can_run_to_pairs_that_are_alike_anyway() -> None:
    # The teacher's second stage is the student's own: heads alone, with the student held still, bring the loss down.
    student = network(0, [(2, 4)], 16)
    alike = next(iter(student.features.values()))
    other = next(iter(network(1, [(2, 4)], 16).features.values()))
    teacher = Signals(features={"a": other, "b": alike})

    def trained(text: str) -> float:
        objective = made(text, student, teacher)
        learned = list(objective.parameters())
        for _ in range(60):
            gradients = torch.autograd.grad(objective(student, teacher, batch(16))["rtk"], learned)
            with torch.no_grad():
                for parameter, gradient in zip(learned, gradients, strict=True):
                    parameter.sub_(0.05 * gradient.sign())
        loss: float = objective(student, teacher, batch(16))["rtk"].item()
        return loss

    whole = distances(student, teacher)[0, 0].item()
    assert trained("rtk(dim=8)") < 0.05 * whole
    assert trained("rtk(dim=8, entropy_floor=0.5)") > 0.24 * whole


def test_the_mean_attention_is_logged_with_zeros_for_what_is_left_out() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER, prefix="teacher:")
    objective = made("rtk()", student, teacher)
    objective(student, teacher, batch())
    found = objective.monitors()
    assert list(found)[:3] == [f"attention.layer0/0.teacher:layer{t}/0" for t in range(3)]
    rows = torch.stack(list(found.values())).reshape(2, 3)
    torch.testing.assert_close(rows, weights_of(objective, student, teacher).mean(dim=0))
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert made("rtk(attention='uniform')", student, teacher).monitors() == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("keys=0", "keys must be a whole number of at least 1, got 0"),
        ("keys=1", "the weight of a single key is 1 whatever the heads say"),
        ("dim=0", "dim must be a whole number of at least 1, got 0"),
        ("attention='even'", "attention: unknown value 'even'"),
        ("detach_attention='no'", "detach_attention must be True or False, got 'no'"),
        ("entropy_floor=1.5", "entropy_floor must be at most 1"),
        ("entropy_floor=1", "all kept weights are equal whatever the heads say"),
        ("attention='uniform', entropy_floor=0.5", "are for attention='learned', not for 'uniform'"),
        ("attention='diagonal', detach_attention=True", "are for attention='learned', not for 'diagonal'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(f"rtk({options})")


def test_forgotten_heads_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no heads yet: call build\(student, teacher\) before"):
        RTK()(network(0, STUDENT), network(1, TEACHER), batch())


def test_the_presets_weigh_as_those_of_afd() -> None:
    for name, afd in (("rtk", "afd"), ("rtk+kd", "afd+kd")):
        assert parse_objective(name).expression() == parse_objective(afd).expression().replace("afd", "rtk")


def test_it_says_that_it_is_a_reconstruction() -> None:
    assert "reconstruction" in (RTK.__doc__ or "").split("\n")[0]

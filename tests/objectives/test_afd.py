"""AFD against its explicit formula, its controls, and what it logs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives import objective_class, parse_objective
from limbeck.signals import Signals
from limbeck.testing import sample_signals

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
    slow_value,
    softmax,
)

AFD = objective_class("afd")


@torch.no_grad()
def slow_afd(objective: AFD, student: Signals, teacher: Signals) -> list[float]:  # type: ignore[valid-type]
    """The value of each sample."""
    ours, theirs = list(student.features.values()), list(teacher.features.values())
    found = [[[0.0] * len(ours)] * len(theirs)] * SIZE
    if objective.heads is not None:  # type: ignore[attr-defined]
        found = slow_similarities(objective.heads, theirs, ours)  # type: ignore[attr-defined]
    values = []
    for sample, similarities in enumerate(found):
        value = 0.0
        for other, row in zip(theirs, similarities, strict=True):
            for one, weight in zip(ours, softmax(row), strict=True):
                value += weight * slow_distance(one, other, sample)
        values.append(value)
    return values


@of_any_depths
def test_value_is_the_formula(student: list[Shape], teacher: list[Shape]) -> None:
    one, other = network(0, student), network(1, teacher, prefix="teacher:")
    objective = made("afd(dim=5)", one, other)
    values = slow_afd(objective, one, other)
    assert objective(one, other, batch())["afd"].item() == pytest.approx(sum(values) / SIZE, rel=1e-9)
    weight = torch.linspace(0, 2, SIZE, dtype=torch.float64)
    weighted = sum(w * value for w, value in zip(weight.tolist(), values, strict=True)) / SIZE
    assert objective(one, other, batch(weight=weight))["afd"].item() == pytest.approx(weighted, rel=1e-9)


def test_the_distances_are_those_of_the_values() -> None:
    ours, theirs = (list(network(n, shapes).features.values()) for n, shapes in enumerate((STUDENT, TEACHER)))
    found = losses.attention_distances(ours, theirs)
    assert found.shape == (SIZE, 2, 3)
    for sample in range(SIZE):
        for s, one in enumerate(ours):
            for t, other in enumerate(theirs):
                assert found[sample, s, t].item() == pytest.approx(
                    slow_distance(one, other, sample), rel=1e-9, abs=1e-15
                )


@pytest.mark.parametrize("kind", ["learned", "uniform", "diagonal"])
def test_one_stage_each_is_the_mean_squared_distance_weighted_by_sample(kind: str) -> None:
    student, teacher = network(0, [(2, 4)]), network(1, [(3, 2)])
    objective = made(f"afd(attention={kind!r})", student, teacher)
    weight = torch.rand(SIZE, dtype=torch.float64)
    rows = [
        [torch.tensor(slow_value(next(iter(maps.features.values())), sample, 2), dtype=torch.float64) for maps in pair]
        for pair in [(student, teacher)]
        for sample in range(SIZE)
    ]
    expected = torch.stack([w * (a - b).square().mean() for w, (a, b) in zip(weight, rows, strict=True)]).mean()
    torch.testing.assert_close(objective(student, teacher, batch(weight=weight))["afd"], expected, rtol=1e-9, atol=0)
    assert list(objective.parameters()) == []


def test_uniform_attention_sums_the_means_over_the_students_stages() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    found = made("afd(attention='uniform')", student, teacher)(student, teacher, batch())["afd"]
    torch.testing.assert_close(found, distances(student, teacher).mean(dim=0).sum(), rtol=1e-6, atol=0)


def test_heads_that_say_nothing_leave_uniform_attention() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective, uniform = (made(text, student, teacher) for text in ("afd(dim=3)", "afd(attention='uniform')"))
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.zero_()
    found, expected = (each(student, teacher, batch())["afd"] for each in (objective, uniform))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("students", "teachers", "partners"),
    [
        (3, 3, [0, 1, 2]),
        (3, 2, [1, 2]),  # half the depth is as near to a third as to two thirds: the deeper
        (2, 3, [0, 0, 1]),  # two thirds are nearer to a half than to the whole
        (1, 3, [0, 0, 0]),
        (3, 1, [2]),
        (2, 6, [0, 0, 0, 0, 1, 1]),
    ],
)
def test_diagonal_attention_is_the_stage_at_the_nearest_depth(
    students: int, teachers: int, partners: list[int]
) -> None:
    student, teacher = network(0, [(2, 4)] * students), network(1, [(3, 4)] * teachers)
    objective = made("afd(attention='diagonal')", student, teacher)
    assert objective.fixed.argmax(dim=0).tolist() == partners
    assert objective.fixed.sum(dim=0).tolist() == [1.0] * teachers
    each = distances(student, teacher)
    expected = sum(each[s, t] for t, s in enumerate(partners))
    torch.testing.assert_close(objective(student, teacher, batch())["afd"], expected, rtol=1e-6, atol=0)


def test_equal_networks_differ_off_the_diagonal_alone() -> None:
    signals = network(0, [(2, 4), (3, 2)])
    diagonal, uniform, learned = (
        made(f"afd(attention={kind!r})", signals, signals)(signals, signals, batch())["afd"].item()
        for kind in ("diagonal", "uniform", "learned")
    )
    each = distances(signals, signals)
    assert each.diagonal().tolist() == [0.0, 0.0]
    assert diagonal == 0
    assert uniform == pytest.approx((each[0, 1] + each[1, 0]).item() / 2, rel=1e-6)
    assert 0 < learned < (each[0, 1] + each[1, 0]).item()
    alone = network(0, [(2, 4)])
    assert made("afd()", alone, alone)(alone, alone, batch())["afd"].item() == 0


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3))
def test_it_lies_between_what_the_best_and_the_worst_attention_give(seed: int, students: int, teachers: int) -> None:
    student, teacher = network(seed, [(2, 4)] * students), network(seed + 1, [(3, 2)] * teachers)
    objective = made("afd(dim=4)", student, teacher)
    each = losses.attention_distances(list(student.features.values()), list(teacher.features.values()))
    found = objective(student, teacher, batch())["afd"]
    low, high = each.amin(dim=1).sum(dim=1).mean(), each.amax(dim=1).sum(dim=1).mean()
    assert low - 1e-12 <= found <= high + 1e-12
    assert high <= teachers * 2 / 4  # 2 / (H·W) a stage


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_the_size_of_the_maps_plays_no_part_in_the_controls(seed: int, factor: float) -> None:
    student, teacher = network(seed, STUDENT), network(seed + 1, TEACHER)
    objective = made("afd(attention='uniform')", student, teacher)
    scaled = objective(student.map(lambda value: factor * value), teacher, batch())["afd"]
    torch.testing.assert_close(scaled, objective(student, teacher, batch())["afd"], rtol=1e-9, atol=1e-13)


def test_gradients_are_those_of_the_values() -> None:
    student, teacher = network(0, [(1, 2), (2, 2)], 3), network(1, [(1, 2), (2, 1)], 3)
    objective = made("afd(dim=3)", student, teacher)
    learned = [value.requires_grad_() for value in student.features.values()] + list(objective.parameters())
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch(3))["afd"], learned)


def test_no_parameter_is_without_effect() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER[:2])
    objective = made("afd()", student, teacher)
    objective(student, teacher, batch())["afd"].backward()
    assert [n for n, p in objective.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9] == []


def test_the_last_biases_that_are_left_out_would_have_no_effect() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made("afd()", student, teacher)
    plain = objective(student, teacher, batch())["afd"]
    norm = objective.heads.forms[1]
    norm.bias = torch.nn.Parameter(torch.randn(len(norm.weight), dtype=torch.float64))
    shifted = objective(student, teacher, batch())["afd"]
    torch.testing.assert_close(shifted, plain, rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(shifted, norm.bias)
    assert gradient.abs().max() < 1e-15


def test_the_mean_attention_is_logged_by_pair_since_the_epoch_began() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER, prefix="teacher:")
    objective = made("afd(dim=4)", student, teacher)
    assert list(objective.monitors()) == [
        f"attention.layer{s}/0.teacher:layer{t}/0" for s in range(2) for t in range(3)
    ]
    objective.start_epoch(1)
    objective(student, teacher, batch())
    objective.start_epoch(2)
    seen = []
    for size, seed in ((4, 2), (2, 4)):
        one, other = network(seed, STUDENT, size), network(seed + 1, TEACHER, size)
        objective(one, other, batch(size))
        similar = slow_similarities(objective.heads, list(other.features.values()), list(one.features.values()))
        seen += [[softmax(row) for row in sample] for sample in similar]
        objective.start_epoch(2)  # as after a stop: the epoch goes on
    for s in range(2):
        for t in range(3):
            expected = sum(sample[t][s] for sample in seen) / 6
            found = objective.monitors()[f"attention.layer{s}/0.teacher:layer{t}/0"]
            assert found.shape == ()
            assert not found.requires_grad
            assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_mean_attention_is_saved() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective, other = (made("afd(dim=4)", student, teacher) for _ in range(2))
    objective.start_epoch(3)
    objective(student, teacher, batch())
    other.load_state_dict(objective.state_dict())
    other.start_epoch(3)
    assert other.monitors() == objective.monitors()


@pytest.mark.parametrize("kind", ["uniform", "diagonal"])
def test_controls_have_no_heads_and_need_no_batch(kind: str) -> None:
    objective = made(f"afd(attention={kind!r})", network(0, STUDENT), network(1, TEACHER))
    assert not objective.batch_coupled
    assert not objective.local_negatives
    assert objective.minimum_batch == 1
    assert list(objective.parameters()) == []
    assert objective.monitors() == {}
    assert objective.state_dict() == {}
    assert AFD.batch_coupled
    assert AFD.local_negatives


def test_maps_whose_squares_overflow_in_half_precision_are_read_in_full() -> None:
    student, teacher = (sample_signals(n).map(lambda value: 300 * value) for n in (1, 2))
    objective = parse_objective("afd()")
    objective.build(student, teacher)
    whole = objective(student, teacher, batch(8))["afd"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(student.map(Tensor.half), teacher.map(Tensor.half), batch(8))["afd"]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(whole.item(), rel=1e-2)


def test_matched_names_play_no_part() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made("afd()", student, teacher)
    renamed = replace(teacher, features=dict(zip("abc", teacher.features.values(), strict=True)))
    assert torch.equal(objective(student, renamed, batch())["afd"], objective(student, teacher, batch())["afd"])


def test_the_heads_are_as_wide_as_asked() -> None:
    objective = made("afd(dim=6)", network(0, STUDENT), network(1, TEACHER))
    shapes = {name: tuple(value.shape) for name, value in objective.heads.named_parameters()}
    assert shapes["queries.1.0.weight"] == (6, 3)
    assert shapes["keys.0.0.weight"] == (6, 2)
    assert shapes["forms.0.weight"] == (18, 6)
    assert (shapes["query_places"], shapes["key_places"]) == ((3, 6), (2, 6))
    count = 6 * (2 + 3 + 4) + 6 * (2 + 3) + 2 * 6 * 5 + 18 * 6 + 18 + 6 * 5
    assert sum(math.prod(shape) for shape in shapes.values()) == count


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("afd(dim=0)", "dim must be a whole number of at least 1, got 0"),
        ("afd(attention='diag')", "did you mean 'diagonal'"),
    ],
)
def test_settings_that_cannot_be_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(text)


def test_what_cannot_be_compared_is_refused() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    with pytest.raises(SignalError, match="needs the teacher's stages: name the layers with 'taps'"):
        AFD().check(student, replace(teacher, features={}), batch())
    with pytest.raises(SignalError, match="at least 2, got 1"):
        AFD().check_batch_size(1)
    with pytest.raises(SettingError, match=r"no heads yet: call build\(student, teacher\) before"):
        AFD()(student, teacher, batch())


def test_the_presets_are_the_authors_sum_with_and_without_kd() -> None:
    assert parse_objective("afd").expression() == "ce() + 200*afd()"
    assert parse_objective("afd+kd").expression() == "ce() + 200*afd() + 0.9*kd()"

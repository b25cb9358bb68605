"""Sums and products of objectives, as Python and as text."""

from __future__ import annotations

import functools
import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import CE, ICD, KD, Objective, WeightedSum, parse_objective, presets
from limbeck.objectives.lskd import LSKD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

NOTHING_LEFT = "every weight of the objective is zero"


def terms_of(objective: Objective) -> dict[str, float]:
    torch.manual_seed(0)
    student, teacher = sample_signals(1, dtype=torch.float64), sample_signals(2, dtype=torch.float64)
    objective.build(student, teacher)
    return {name: value.item() for name, value in objective.double()(student, teacher, sample_batch()).items()}


def test_terms_of_a_sum_are_the_weighted_terms_of_its_parts() -> None:
    ce, kd = terms_of(CE())["ce"], terms_of(KD(temperature=2))["kd"]
    total = terms_of(0.1 * CE() + KD(temperature=2) * 0.9)
    assert total == pytest.approx({"ce": 0.1 * ce, "kd": 0.9 * kd}, rel=1e-12)


def test_terms_are_named_after_their_part_and_repeated_parts_are_numbered() -> None:
    assert list(terms_of(CE() + ICD(dim=4))) == ["ce", "icd.contrast", "icd.invariance"]
    assert list(terms_of(KD() + CE() + KD(temperature=1))) == ["kd1.kd", "ce", "kd2.kd"]


def test_repeated_parts_both_count() -> None:
    once, other = terms_of(KD())["kd"], terms_of(KD(temperature=1))["kd"]
    assert sum(terms_of(KD() + 2 * KD(temperature=1)).values()) == pytest.approx(once + 2 * other)


def test_sums_of_sums_are_flat_and_weights_multiply() -> None:
    objective = 2 * (CE() + 0.5 * (KD() + 3 * ICD())) * 2
    assert objective.weights == (4.0, 2.0, 6.0)
    assert [type(part) for part in objective.parts] == [CE, KD, ICD]


def test_the_sum_of_a_list_is_the_sum_of_its_objectives() -> None:
    listed = sum([CE(), 0.5 * KD(), ICD()])
    assert isinstance(listed, WeightedSum)
    assert listed.expression() == (CE() + 0.5 * KD() + ICD()).expression()
    assert sum([CE()]).expression() == "ce()"


@pytest.mark.parametrize("other", [1, 0.5, "ce", None, [CE()]])
def test_only_objectives_are_added(other: object) -> None:
    with pytest.raises((SettingError, TypeError)):
        operator.add(CE(), other)
    with pytest.raises((SettingError, TypeError)):
        operator.add(other, CE())


@pytest.mark.parametrize(
    "weight",
    ["2", None, True, float("nan"), float("inf"), 10**400, KD(), torch.tensor(2.0)],
    ids=lambda weight: type(weight).__name__,
)
def test_weights_are_finite_numbers(weight: object) -> None:
    with pytest.raises(SettingError, match="must be a finite number"):
        CE() * weight  # type: ignore[operator]
    with pytest.raises(SettingError, match="must be a finite number"):
        WeightedSum([(weight, CE())])  # type: ignore[list-item]


def test_parts_of_weight_zero_are_left_out_with_their_needs() -> None:
    for objective in (CE() + 0 * ICD(), 0.0 * ICD() + CE(), parse_objective("ce + 0*icd")):
        assert objective.expression() == "ce()"
        assert not objective.batch_coupled
        assert "embedding" not in objective.needs
        assert not list(objective.parameters())


def test_a_sum_of_nothing_is_an_error_where_it_is_used() -> None:
    with pytest.raises(SettingError, match=NOTHING_LEFT):
        parse_objective("0*ce + 0*icd")
    nothing = 0 * CE()
    with pytest.raises(SettingError, match=NOTHING_LEFT):
        nothing.build(sample_signals(0), sample_signals(0))
    with pytest.raises(SettingError, match=NOTHING_LEFT):
        nothing(sample_signals(0), sample_signals(0), sample_batch())


@pytest.mark.parametrize(
    ("text", "coupled", "teacher", "local", "needs"),
    [
        ("ce()", False, False, False, {"labels", "logits"}),
        ("kd()", False, True, False, {"logits"}),
        ("ce + kd()", False, True, False, {"labels", "logits"}),
        ("ce + icd()", True, True, False, {"labels", "logits", "embedding"}),
        ("kd + icd(variant='paper')", True, True, True, {"logits", "embedding"}),
    ],
)
def test_a_sum_needs_what_its_parts_need(text: str, coupled: bool, teacher: bool, local: bool, needs: set[str]) -> None:
    objective = parse_objective(text)
    assert (objective.batch_coupled, objective.needs_teacher, objective.local_negatives) == (coupled, teacher, local)
    assert objective.needs == needs


@pytest.mark.parametrize(
    ("student", "teacher", "sentence"),
    [
        (Signals(logits=torch.ones(2, 3)), sample_signals(0), r"icd\(\) needs the student's embedding: .*'classifier'"),
        (sample_signals(0), Signals(logits=torch.ones(2, 3)), r"icd\(\) needs the teacher's embedding: .*'classifier'"),
        (Signals(embedding=torch.ones(2, 3)), sample_signals(0), r"ce\(\) needs the student's logits"),
    ],
)
def test_a_missing_signal_is_a_sentence_before_the_first_step(
    student: Signals, teacher: Signals, sentence: str
) -> None:
    with pytest.raises(SignalError, match=sentence):
        (CE() + ICD()).check(student, teacher, sample_batch())


def test_a_missing_index_is_a_sentence() -> None:
    class Bank(Objective, name="bank"):
        needs = frozenset({"index"})

    with pytest.raises(SignalError, match=r"bank\(\) needs each sample's index"):
        Bank().check(Signals(), Signals(), Batch(torch.zeros(2, 1), torch.zeros(2)))
    Bank().check(Signals(), Signals(), sample_batch())


def test_monitors_carry_the_name_of_their_part() -> None:
    assert {name: value.item() for name, value in (CE() + ICD()).monitors().items()} == pytest.approx(
        {"icd.scale": 2.71828}
    )


weights = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6)
parts = st.one_of(
    st.builds(CE, label_smoothing=st.floats(0, 0.9)),
    st.builds(KD, temperature=st.floats(0.1, 100) | st.integers(1, 20)),
    st.builds(ICD, alpha=st.floats(0, 9), dim=st.integers(1, 9), symmetric=st.booleans(), variant=st.just("paper")),
)

wrapped = st.builds(LSKD, st.builds(KD, temperature=st.floats(0.1, 100))) | st.builds(
    lambda weight, inside: LSKD(weight * inside + CE()), weights, st.builds(KD, temperature=st.integers(1, 20))
)


@given(st.lists(st.tuples(weights, parts | wrapped), min_size=1, max_size=4))
def test_any_sum_written_as_text_is_read_as_the_same(pairs: list[tuple[float, Objective]]) -> None:
    objective = functools.reduce(operator.add, (weight * part for weight, part in pairs))
    again = parse_objective(objective.expression())
    assert again.weights == objective.weights
    assert [part.arguments() for part in again.parts] == [part.arguments() for part in objective.parts]
    assert str(again) == str(objective)


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (CE() + ICD(alpha=1.0) + 0.9 * KD(temperature=2), "ce() + icd(alpha=1.0) + 0.9*kd(temperature=2)"),
        (-0.5 * KD() + 2 * ICD(variant="paper"), "-0.5*kd() + 2*icd(variant='paper')"),
        (0.123456789012 * CE(), "0.123456789012*ce()"),
        (WeightedSum([(1.0, ICD(alpha=0.5))]), "icd()"),
        (CE() + 2 * LSKD(KD(temperature=2)), "ce() + 2*lskd(kd(temperature=2))"),
        (0.5 * LSKD(0.1 * CE() + KD()), "0.5*lskd(0.1*ce() + kd())"),
        (WeightedSum([(1.0, LSKD(LSKD()))]), "lskd(lskd(kd(temperature=2.0)))"),
    ],
)
def test_text_holds_what_is_not_at_its_default(objective: WeightedSum, text: str) -> None:
    assert objective.expression() == str(objective) == text


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("ce", "ce()"),
        ("icd", "ce() + icd()"),
        ("dcd", "ce() + icd()"),
        ("icd()", "icd()"),
        ("1*icd", "icd()"),
        ("ce + icd", "ce() + icd()"),
        ("icd+kd", "ce() + icd() + kd()"),
        (" ICD + KD ", "ce() + icd() + kd()"),
        ("dcd+kd", "ce() + icd() + kd()"),
        ("kd", "0.1*ce() + 0.9*kd()"),
        ("kd()", "kd()"),
        ("icd_paper", "ce() + icd(variant='paper')"),
        ("icd_paper+kd", "ce() + icd(variant='paper') + kd()"),
        ("lskd", "0.1*ce() + 9*lskd(kd(temperature=2))"),
        ("lskd()", "lskd(kd(temperature=2.0))"),
        ("lskd(kd)", "lskd(kd())"),
    ],
)
def test_a_bare_preset_is_its_expression_and_parentheses_the_objective_alone(text: str, meaning: str) -> None:
    assert parse_objective(text).expression() == meaning


def test_presets_are_expressions_that_can_be_read() -> None:
    for name, expression in presets().items():
        assert parse_objective(name).expression() == parse_objective(expression).expression()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("icdd()", r"unknown objective 'icdd'; did you mean 'icd'\? .*'limbeck list objectives'"),
        ("ce + kdd", r"unknown objective 'kdd'; did you mean 'kd'\?"),
        ("dc_d()", r"unknown objective 'dc_d'; did you mean 'dcd'\?"),
        (
            "kd(temprature=4)",
            r"unknown argument of kd 'temprature'; did you mean 'temperature'\? Accepted: temperature\.",
        ),
        ("ce(temperature=4)", r"unknown argument of ce 'temperature'\. Accepted: label_smoothing, views\."),
        ("kd(temperature=0)", r"kd: temperature must be greater than 0\.0, got 0"),
        ("kd(temperature='4')", r"kd: temperature must be a finite number, got '4'"),
        ("kd(ce)", r"kd takes no objective inside its parentheses"),
        ("lskd(ce)", r"lskd: objectives that compare logits must stand inside, and nothing else, got ce\(\)"),
        ("lskd(kdd)", r"unknown objective 'kdd'; did you mean 'kd'\?"),
        ("lskd(temperature=2)", r"unknown argument of lskd 'temperature'"),
        ("kd(4)", r"arguments of kd are given by name"),
        ("", "the objective is empty"),
    ],
)
def test_mistakes_in_text_name_the_nearest_spelling(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(text)

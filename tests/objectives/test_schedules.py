"""Weights that change from epoch to epoch: their values, their algebra, their text, and what a sum does with them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import SettingError
from limbeck.objectives import CE, ICD, KD, After, Decay, Objective, Ramp, Until, WeightedSum, parse_objective
from limbeck.objectives.lskd import LSKD
from limbeck.objectives.schedules import SCHEDULES, Product, Schedule, Weight, weight_text
from limbeck.testing import built, sample_batch, sample_signals

FINITE = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.integers(1, 99)
EPOCHS = st.integers(1, 300)
SHARE = st.floats(0, 1)
single = st.one_of(
    st.builds(Decay, FINITE, SHARE),
    st.builds(Ramp, FINITE, FINITE, EPOCHS, st.sampled_from(["linear", "sigmoid"])),
    st.builds(Ramp, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), EPOCHS, st.just("geometric")),
    st.builds(Until, EPOCHS),
    st.builds(After, EPOCHS),
)


def product_of(factors: list[Schedule], number: float) -> Weight:
    return math.prod(factors, start=number)


schedules = st.builds(product_of, st.lists(single, min_size=1, max_size=3), FINITE)


# -- values ------------------------------------------------------------------------------------------------------------


def test_the_decay_of_the_information_flow_paper() -> None:
    weight = Decay(100, 0.7)
    assert [weight.at(k) for k in range(4)] == pytest.approx([100, 70, 49, 34.3])
    assert weight.at(12) > 1 > weight.at(13)
    assert weight.at(10**6) == 0.0


def test_the_two_weights_of_bss() -> None:
    clean, attacked = Ramp(4, 1, epochs=80), Ramp(2, 0, epochs=60)
    for e in range(100):
        assert clean.at(e) == pytest.approx(max(3 * (1 - e / 80), 0) + 1)
        assert attacked.at(e) == pytest.approx(max(2 * (1 - (4 / 3) * e / 80), 0), abs=1e-12)


def test_the_ramp_up_of_one() -> None:
    weight = Ramp(0, 1, epochs=80, shape="sigmoid")
    for t in range(100):
        assert weight.at(t) == pytest.approx(math.exp(-5 * (1 - t / 80) ** 2) if t < 80 else 1.0)


def test_a_geometric_ramp_is_a_decay_turned_round() -> None:
    decay, turned = Decay(100, 0.7), Ramp(100 * 0.7**49, 100, epochs=49, shape="geometric")
    assert [turned.at(k) for k in range(50)] == pytest.approx([decay.at(49 - k) for k in range(50)])
    assert turned.at(60) == 100.0
    assert Ramp(-1e-300, -1e300, 2, "geometric").at(1) == pytest.approx(-1.0)


def test_until_and_after_make_a_window() -> None:
    window = Until(5) * After(2)
    assert isinstance(window, Schedule)
    assert [window.at(k) for k in range(7)] == [0, 0, 1, 1, 1, 0, 0]


def test_the_ends_of_the_factor() -> None:
    assert [Decay(3, 0).at(k) for k in range(3)] == [3, 0, 0]
    assert [Decay(3, 1).at(k) for k in (0, 1, 1000)] == [3, 3, 3]


@given(FINITE, FINITE, EPOCHS, st.sampled_from(["linear", "sigmoid"]))
def test_a_ramp_stays_between_its_ends_and_stops(start: float, end: float, epochs: int, shape: str) -> None:
    values = [Ramp(start, end, epochs, shape).at(k) for k in range(epochs + 3)]
    assert values[epochs:] == [end] * 3
    rising = sorted(values, reverse=start > end)
    assert values == pytest.approx(rising, rel=1e-9, abs=1e-9)
    assert min(values) >= min(start, end) - 1e-6
    assert max(values) <= max(start, end) + 1e-6


@given(schedules, st.integers(0, 10**4))
def test_a_weight_is_within_its_bound(weight: Weight, epoch: int) -> None:
    assert isinstance(weight, Schedule)
    assert abs(weight.at(epoch)) <= weight.bound * (1 + 1e-9)


# -- algebra -----------------------------------------------------------------------------------------------------------


@given(st.permutations([Decay(2, 0.5), Until(3), Ramp(1, 2, 4), 3.0, 0.5]))
def test_products_are_the_same_in_any_order(factors: list[Schedule | float]) -> None:
    weight = math.prod(factors)
    assert weight == Product(1.5, (Decay(2, 0.5), Ramp(1, 2, 4), Until(3)))
    assert isinstance(weight, Schedule)
    assert weight.at(2) == pytest.approx(1.5 * 0.5 * 1.5 * 1)


def test_schedules_are_weights_of_objectives_from_either_side() -> None:
    for objective in (Decay(4, 0.5) * KD(), KD() * Decay(4, 0.5), WeightedSum([(Decay(4, 0.5), KD())])):
        assert objective.weights == (Decay(4, 0.5),)
        assert str(objective) == "decay(4, 0.5)*kd()"


def test_weights_multiply_through_sums() -> None:
    objective = 2 * (Decay(4, 0.5) * (CE() + 0.5 * (Until(3) * KD())))
    assert str(objective) == "2*decay(4, 0.5)*ce() + decay(4, 0.5)*until(epochs=3)*kd()"
    assert objective.weights[0] == 2 * Decay(4, 0.5)


def test_zero_times_a_schedule_leaves_the_part_out() -> None:
    for objective in (CE() + 0 * Decay(1, 0.5) * ICD(), parse_objective("ce + 0*decay(1, 0.5)*icd")):
        assert str(objective) == "ce()"
    with pytest.raises(SettingError, match="every weight of the objective is zero"):
        parse_objective("0*decay(1, 0.5)*kd")


@pytest.mark.parametrize("other", ["2", None, True, [1]], ids=repr)
def test_schedules_multiply_with_numbers_schedules_and_objectives_alone(other: object) -> None:
    with pytest.raises(TypeError):
        Decay(1, 0.5) * other  # type: ignore[operator]
    with pytest.raises(TypeError):
        other * Decay(1, 0.5)  # type: ignore[operator]


@pytest.mark.parametrize("number", [math.inf, math.nan, 10**400, -1e308])
def test_a_product_is_finite_in_every_epoch(number: float) -> None:
    with pytest.raises(SettingError, match="finite"):
        Decay(100, 0.5) * number


# -- text --------------------------------------------------------------------------------------------------------------


@given(schedules)
def test_any_weight_written_as_text_is_read_as_the_same(weight: Weight) -> None:
    (again,) = parse_objective(f"{weight_text(weight)}*kd()").weights
    assert again == weight
    assert weight_text(again) == weight_text(weight)


@given(st.lists(st.tuples(schedules | st.floats(0.1, 9), st.sampled_from([CE, KD, ICD])), min_size=1, max_size=4))
def test_any_sum_written_as_text_is_read_as_the_same(parts: list[tuple[Weight, type[Objective]]]) -> None:
    objective = WeightedSum([(weight, made()) for weight, made in parts])
    again = parse_objective(str(objective))
    assert str(again) == str(objective)
    assert again.weights == objective.weights


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("decay(100, 0.7)*kd()", "decay(100, 0.7)*kd()"),
        ("decay(start=1e2, factor=0.70)*kd", "decay(100, 0.7)*kd()"),
        ("decay(100, factor=0.7)*0.5*kd", "0.5*decay(100, 0.7)*kd()"),
        ("0.5*(2*decay(1, 1)*kd + ce)", "decay(1, 1)*kd() + 0.5*ce()"),
        ("ramp(4, 1, 80)*kd", "ramp(4, 1, epochs=80)*kd()"),
        ("ramp(0, 1, epochs=80, shape='sigmoid')*kd", "ramp(0, 1, epochs=80, shape='sigmoid')*kd()"),
        ("ce + until(10)*kd + after(epochs=10)*dkd()", "ce() + until(epochs=10)*kd() + after(epochs=10)*dkd()"),
        ("lskd(until(3)*kd + kd(temperature=2))", "lskd(until(epochs=3)*kd() + kd(temperature=2))"),
    ],
)
def test_text_means(text: str, meaning: str) -> None:
    assert str(parse_objective(text)) == meaning
    assert str(parse_objective(meaning)) == meaning


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("decay*kd", r"decay: decay needs the argument 'start', as in decay\(start=…, factor=…\)"),
        ("decay(1)*kd", r"decay\(1\): decay needs the argument 'factor'"),
        ("decay(1, .5, 3)*kd", r"decay\(1, .5, 3\): 3 values are too many for decay\(start=…, factor=…\)"),
        ("decay(1, start=2)*kd", r"decay\(1, start=2\): the argument 'start' is given twice"),
        ("decay(1, facter=2)*kd", r"unknown argument of decay 'facter'; did you mean 'factor'\?"),
        ("decay(1, 1.5)*kd", r"decay\(1, 1.5\): factor must be at most 1.0, got 1.5"),
        ("decay(1, -0.5)*kd", r"factor must be at least 0.0, got -0.5"),
        ("decay(0, 0.5)*kd", r"start must not be 0"),
        ("decay('1', 0.5)*kd", r"start must be a finite number, got '1'"),
        ("decay(True, 0.5)*kd", r"start must be a finite number, got True"),
        ("ramp(0, 0, 5)*kd", r"start and end must not both be 0"),
        ("ramp(0, 1, 0)*kd", r"epochs must be a whole number of at least 1, got 0"),
        ("ramp(0, 1, 5, 'log')*kd", r"shape: unknown value 'log'\. Accepted: linear, sigmoid, geometric"),
        ("ramp(0, 1, 5, 'geometric')*kd", r"a geometric ramp needs a start and an end of one sign"),
        ("ramp(-1, 1, 5, 'geometric')*kd", r"a geometric ramp needs a start and an end of one sign"),
        ("until(2.5)*kd", r"until\(2.5\): epochs must be a whole number of at least 1, got 2.5"),
        ("after(epochs=0)*kd", r"epochs must be a whole number of at least 1"),
        ("1e300*decay(1e300, 0.5)*kd", r"the weight must be finite in every epoch"),
        ("decai(1, 0.5)*kd", r"did you mean 'decay'\?"),
        ("decay()", r"a schedule is a weight"),
    ],
)
def test_mistakes_are_sentences_that_name_the_place(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(text)


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_objective_cannot_have_the_name_of_a_schedule(name: str) -> None:
    with pytest.raises(SettingError, match=rf"'{name}' of .* is that of a schedule"):
        type("Twin", (Objective,), {}, name=name)


# -- in a sum ----------------------------------------------------------------------------------------------------------


def terms_in(objective: WeightedSum, epoch: int) -> dict[str, float]:
    objective.start_epoch(epoch)
    student, teacher = sample_signals(1, dtype=torch.float64), sample_signals(2, dtype=torch.float64)
    return {name: value.item() for name, value in objective(student, teacher, sample_batch()).items()}


@given(schedules, st.integers(1, 400))
def test_terms_are_weighted_with_the_weight_of_the_epoch(weight: Weight, epoch: int) -> None:
    assert isinstance(weight, Schedule)
    objective = (CE() + weight * KD()).double()
    once = terms_in((CE() + KD()).double(), epoch)
    found = terms_in(objective, epoch)
    assert found["ce"] == once["ce"]
    assert found["kd"] == pytest.approx(weight.at(epoch - 1) * once["kd"], rel=1e-12)
    assert {name: value.item() for name, value in objective.monitors().items()} == {"weight.kd": weight.at(epoch - 1)}


def test_before_any_epoch_the_weight_is_that_of_the_first() -> None:
    objective = parse_objective("decay(8, 0.5)*kd")
    assert objective.monitors()["weight.kd"] == 8
    objective.start_epoch(3)
    assert objective.monitors()["weight.kd"] == 2
    objective.start_epoch(1)  # of the next stage
    assert objective.monitors()["weight.kd"] == 8


def test_a_constant_decay_is_a_number() -> None:
    assert terms_in(parse_objective("decay(3, 1)*kd").double(), 7) == terms_in(parse_objective("3*kd()").double(), 7)


def test_repeated_parts_have_a_weight_each() -> None:
    objective = parse_objective("decay(8, 0.5)*kd + 2*kd(temperature=1) + until(1)*kd(temperature=2)")
    objective.start_epoch(2)
    assert {name: value.item() for name, value in objective.monitors().items()} == {"weight.kd1": 4, "weight.kd3": 0}


def test_schedules_inside_of_an_objective_are_told_the_epoch() -> None:
    objective = WeightedSum([(Decay(4, 0.5), LSKD(Decay(8, 0.5) * KD()))])
    objective.start_epoch(2)
    assert {name: value.item() for name, value in objective.monitors().items()} == {
        "weight.lskd": 2,
        "lskd.weight.kd": 4,
    }


def test_a_saved_weight_is_that_of_its_epoch_and_the_next_epoch_is_told_again() -> None:
    objective, again = parse_objective("decay(8, 0.5)*kd"), parse_objective("decay(8, 0.5)*kd")
    objective.start_epoch(3)
    again.load_state_dict(objective.state_dict())
    for each in (again, copy.deepcopy(objective)):
        assert each.monitors() == objective.monitors()
        each.start_epoch(4)
        assert each.monitors()["weight.kd"] == 1


def test_numbers_alone_leave_no_state() -> None:
    assert not parse_objective("ce + 0.5*kd").state_dict()


@pytest.mark.slow
def test_a_new_epoch_makes_no_new_compiled_program() -> None:
    objective = built("ce + decay(8, 0.5)*kd")
    torch.compiler.reset()
    made: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        made.append(graph)
        return graph.forward

    compiled = torch.compile(objective, backend=backend, fullgraph=True)
    found = []
    for epoch in range(1, 5):
        objective.start_epoch(epoch)
        found.append(compiled(sample_signals(1), sample_signals(2), sample_batch())["kd"].item())
    assert len(made) == 1
    assert found == pytest.approx([found[0] / 2**k for k in range(4)])

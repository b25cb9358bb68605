"""Activation boundaries against the explicit formula, and the shapes of its connectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective
from limbeck.signals import Batch, Signals

AB = objective_class("ab")
Shape = tuple[int, int]


def maps(seed: int, *shapes: Shape, size: int = 3, dtype: torch.dtype = torch.float64) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(size, c, side, side, generator=generator, dtype=dtype) for c, side in shapes]
    return Signals(preactivations={f"stage{i}": value for i, value in enumerate(drawn)})


def batch(size: int = 3, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(student: Signals, teacher: Signals, **options: Any) -> Objective:
    torch.manual_seed(0)
    objective = AB(**options)
    objective.build(student, teacher)
    return objective.double()


def connectors(objective: Objective) -> list[nn.Module]:
    assert isinstance(objective.connectors, nn.ModuleList)
    return list(objective.connectors)


def slow_ab(objective: Objective, student: Signals, teacher: Signals, margin: float) -> list[float]:
    pairs = list(zip(student.preactivations.values(), teacher.preactivations.values(), strict=True))
    values = [0.0] * len(pairs[0][0])
    for layer, (one, other) in enumerate(pairs):
        ours = connectors(objective)[layer](one)
        for sample in range(len(values)):
            for s, t in zip(ours[sample].flatten().tolist(), other[sample].flatten().tolist(), strict=True):
                cost = 0.0
                if s > -margin and t <= 0:
                    cost = (s + margin) ** 2
                if s <= margin and t > 0:
                    cost = (s - margin) ** 2
                values[sample] += 3 / 1000 * 2 ** (layer - len(pairs) + 1) * cost
    return values


@pytest.mark.parametrize("margin", [1.0, 0.0, 2.5])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([(2, 4), (3, 2)], [(2, 4), (3, 2)]),
        ([(2, 4), (3, 2), (3, 1)], [(4, 4), (5, 2), (6, 1)]),
        ([(2, 8), (3, 2)], [(4, 4), (5, 4)]),
    ],
    ids=["equal shapes", "wider teacher", "other sizes"],
)
def test_value_is_the_formula(student: list[Shape], teacher: list[Shape], margin: float) -> None:
    one, other = maps(0, *student), maps(1, *teacher)
    objective = made(one, other, margin=margin)
    values = slow_ab(objective, one, other, margin)
    assert objective(one, other, batch())["ab"].item() == pytest.approx(sum(values) / 3, rel=1e-9)
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    weighted = objective(one, other, batch(weight=weight))["ab"]
    assert weighted.item() == pytest.approx((2 * values[0] + 0.5 * values[2]) / 3, rel=1e-9)


def test_hand_computed() -> None:
    # (response of the student, of the teacher): wrong by 1.5, within the margin, beyond it, on the boundary
    pairs = [(0.5, -1.0), (0.25, 3.0), (-2.0, -0.1), (1.0, 0.0)]
    expected = 1.5**2 + 0.75**2 + 0.0 + 2.0**2
    one, other = (torch.tensor([pair[i] for pair in pairs]).reshape(1, 4, 1, 1) for i in (0, 1))
    student, teacher = Signals(preactivations={"last": one}), Signals(preactivations={"last": other})
    assert made(student, teacher)(student, teacher, batch(1))["ab"].item() == pytest.approx(3e-3 * expected)
    # As the first of two stages it has half the weight; the second agrees and costs nothing.
    more = torch.full((1, 1, 1, 1), 5.0)
    student, teacher = (Signals(preactivations={"first": value, "last": more}) for value in (one, other))
    assert made(student, teacher)(student, teacher, batch(1))["ab"].item() == pytest.approx(1.5e-3 * expected)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e3))
def test_only_the_sign_of_the_teacher_counts(factor: float) -> None:
    student, teacher = maps(0, (2, 4)), maps(1, (3, 4))
    objective = made(student, teacher)
    scaled = objective(student, teacher.map(lambda value: factor * value), batch())["ab"]
    assert torch.equal(scaled, objective(student, teacher, batch())["ab"])


def test_beyond_the_margin_nothing_is_asked_of_the_student() -> None:
    teacher = maps(1, (2, 4))
    student = teacher.map(lambda value: 1.5 * value.sign()).map(Tensor.requires_grad_)
    loss = made(student, teacher)(student, teacher, batch())["ab"]
    loss.backward()
    assert loss.item() == 0
    assert not student.preactivations["stage0"].grad.any()


def test_gradients_of_the_student_and_of_the_connectors() -> None:
    student, teacher = maps(0, (2, 2), (2, 2)), maps(1, (2, 2), (3, 2))
    objective = made(student, teacher)
    learned = [value.requires_grad_() for value in student.preactivations.values()] + list(objective.parameters())
    assert len(learned) == 2 + 3
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch())["ab"], learned)


def test_maps_that_agree_need_no_connector_and_the_others_end_without_relu() -> None:
    student, teacher = maps(0, (2, 4), (2, 4)), maps(1, (2, 4), (3, 4))
    plain, trained = connectors(made(student, teacher))
    assert not list(plain.parameters())
    assert isinstance(list(trained.children())[-1], nn.BatchNorm2d)
    assert (trained(student.preactivations["stage1"]) < 0).any()


def test_heads_start_where_the_docstring_says() -> None:
    student, teacher = maps(0, (4, 16), (8, 8), size=16), maps(1, (8, 16), (16, 8), size=16)
    elements = 8 * 16 * 16 / 2 + 16 * 8 * 8
    loss = made(student, teacher)(student, teacher, batch(16))["ab"]
    assert loss.item() == pytest.approx(0.0058 * elements, rel=0.02)


def test_it_trains_first_and_alone_unless_told_otherwise() -> None:
    stage = AB().initial_stage()
    assert stage is not None
    assert (stage.epochs, stage.trains) == (30, ("student", "objective"))
    assert AB().only_initial
    assert AB(init_epochs=0).initial_stage() is None
    assert parse_objective("ab").expression() == "ce() + ab()"
    assert parse_objective("kd+ab").expression() == parse_objective("ab+kd").expression() == "ce() + ab() + kd()"


def test_sizes_that_no_connector_fits_are_refused_by_name() -> None:
    with pytest.raises(SignalError, match=r"ab\(\) cannot compare 'stage0': no convolution is defined"):
        made(maps(0, (2, 3)), maps(1, (2, 4)))


def test_stages_without_a_partner_are_refused() -> None:
    student, teacher = maps(0, (2, 4)), Signals(preactivations={"other": torch.zeros(3, 2, 4, 4)})
    with pytest.raises(SignalError, match="compares preactivations stage by stage, and none of the student's"):
        AB().check(student, teacher, batch())


def test_forgotten_connectors_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no connectors yet: call build\(student, teacher\) before"):
        AB()(maps(0, (2, 4)), maps(1, (2, 4)), batch())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"margin": -1}, "margin must be at least 0"),
        ({"margin": "1"}, "margin must be a finite number"),
        ({"init_epochs": -1}, "init_epochs must be a whole number of at least 0"),
        ({"init_epochs": 2.0}, "init_epochs must be a whole number of at least 0"),
        ({"init_epochs": False}, "init_epochs must be a whole number of at least 0"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        AB(**options)

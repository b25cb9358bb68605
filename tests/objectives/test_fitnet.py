"""FitNet's hints against their formula (shared/spec/vision-methods.md, section 3.2, item 2)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import parse_objective
from limbeck.objectives.fitnet import FitNet
from limbeck.signals import Batch, Signals

STUDENT = {"layer1": (2, 6), "layer2": (3, 4), "layer3": (4, 2)}
TEACHER = {"layer1": (3, 6), "layer2": (5, 4), "layer3": (4, 2)}


def signals(seed: int, maps: dict[str, tuple[int, int]], n: int = 3, dtype: torch.dtype = torch.float64) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (n, channels, side, side) for name, (channels, side) in maps.items()}
    features = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return Signals(features={name: value.to(dtype) for name, value in features.items()})


def batch_of(size: int, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(student: Signals | None = None, teacher: Signals | None = None, **options: Any) -> FitNet:
    objective = FitNet(**options)
    torch.manual_seed(0)
    objective.build(student or signals(0, STUDENT), teacher or signals(1, TEACHER))
    return objective.double()


def fitnet(objective: FitNet, student: Signals, teacher: Signals, weight: Tensor | None = None) -> Tensor:
    size = len(next(iter(student.features.values())))
    return objective(student, teacher, batch_of(size, weight))["fitnet"]


def slow_fitnet(objective: FitNet, student: Tensor, teacher: Tensor) -> float:
    """For maps of equal sizes, where the convolution is 1×1."""
    assert objective.regressor is not None
    weight, scale, shift = (parameter.tolist() for parameter in objective.regressor.parameters())
    n, _, height, width = student.shape
    places = [(i, h, w) for i in range(n) for h in range(height) for w in range(width)]
    total = 0.0
    for channel, row in enumerate(weight):
        values = [sum(row[c][0][0] * student[i, c, h, w].item() for c in range(len(row))) for i, h, w in places]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for value, (i, h, w) in zip(values, places, strict=True):
            normal = (value - mean) / math.sqrt(variance + 1e-5)
            guess = max(0.0, scale[channel] * normal + shift[channel])
            total += (guess - teacher[i, channel, h, w].item()) ** 2
    return total / teacher.numel()


@pytest.mark.parametrize("hint", [1, 2, 3])
def test_value_is_the_formula_at_the_stage_of_the_hint(hint: int) -> None:
    objective, student, teacher = made(hint=hint), signals(2, STUDENT), signals(3, TEACHER)
    assert objective.regressor is not None
    with torch.no_grad():
        for parameter in objective.regressor[1].parameters():  # type: ignore[index]
            parameter.copy_(torch.linspace(0.5, 1.5, len(parameter)))
    name = f"layer{hint}"
    expected = slow_fitnet(objective, student.features[name], teacher.features[name])
    assert fitnet(objective, student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_the_hint_is_the_second_stage_unless_told_and_others_play_no_part() -> None:
    objective, student, teacher = made(), signals(2, STUDENT), signals(3, TEACHER)
    value = fitnet(objective, student, teacher)
    others = {name: maps + 1 for name, maps in student.features.items() if name != "layer2"}
    assert torch.equal(fitnet(objective, Signals(features={**student.features, **others}), teacher), value)
    moved = Signals(features={**student.features, "layer2": student.features["layer2"].flip(-1)})
    assert not torch.allclose(fitnet(objective, moved, teacher), value)


def test_matched_stages_are_counted_and_not_all() -> None:
    student = signals(2, {"alone": (2, 8), **STUDENT})
    objective = made(student)
    same = Signals(features={name: maps for name, maps in student.features.items() if name != "alone"})
    teacher = signals(3, TEACHER)
    assert torch.equal(fitnet(objective, student, teacher), fitnet(objective, same, teacher))


@pytest.mark.parametrize("side", [2, 4, 5, 8])
def test_a_map_of_another_size_is_brought_to_the_teachers(side: int) -> None:
    student, teacher = signals(2, {"a": (3, side)}), signals(3, {"a": (5, 4)})
    objective = made(student, teacher, hint=1)
    loss = fitnet(objective, student, teacher)
    loss.backward()
    assert 0 < loss < 10
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-6 for p in objective.parameters())


def test_the_error_falls_to_zero_where_the_teachers_map_can_be_reached() -> None:
    student, teacher = signals(2, {"a": (3, 4)}), signals(3, {"a": (5, 4)})
    objective = made(student, teacher, hint=1)
    assert objective.regressor is not None
    reached = Signals(features={"a": objective.regressor(student.features["a"]).detach()})
    assert fitnet(objective, student, reached) < 1e-20


def test_it_is_a_mean_over_all_elements() -> None:
    student, teacher = signals(2, STUDENT), signals(3, TEACHER)
    objective = made()
    doubled = [side.map(lambda v: torch.cat([v, v])) for side in (student, teacher)]
    torch.testing.assert_close(fitnet(objective, *doubled), fitnet(objective, student, teacher))


def test_samples_are_weighted() -> None:
    objective, student, teacher = made(), signals(2, STUDENT, 2), signals(3, TEACHER, 2)
    assert objective.regressor is not None
    guess = objective.regressor(student.features["layer2"])
    errors = (guess - teacher.features["layer2"]).square().mean(dim=(1, 2, 3))
    weighted = fitnet(objective, student, teacher, weight=torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(weighted, (2 * errors[0] + 0.5 * errors[1]) / 2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_squares_of_a_teacher_in_half_precision_do_not_overflow(half: torch.dtype) -> None:
    student = signals(2, STUDENT, dtype=torch.float32)
    teacher = signals(3, TEACHER).map(lambda maps: (300 * maps.sign()).to(half))
    objective = made().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = fitnet(objective, student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(300**2, rel=0.01)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_gradients_are_those_of_the_formula_for_student_and_regressor() -> None:
    student, teacher = signals(2, {"a": (2, 2)}), signals(3, {"a": (3, 2)})
    objective = made(student, teacher, hint=1)
    maps = student.features["a"].requires_grad_()
    learned = [maps, *objective.parameters()]
    assert torch.autograd.gradcheck(lambda *_: fitnet(objective, student, teacher), learned)


def test_by_default_it_is_one_loss_among_others() -> None:
    assert not FitNet().only_initial
    assert FitNet().initial_stage() is None


def test_with_epochs_of_its_own_it_trains_student_and_regressor_first_and_is_gone_then() -> None:
    objective = FitNet(init_epochs=7)
    stage = objective.initial_stage()
    assert stage is not None
    assert stage.objective is objective
    assert (stage.epochs, stage.trains, stage.lr) == (7, ("student", "objective"), None)
    assert objective.only_initial


def test_the_preset_of_two_stages_is_the_papers_form_and_leaves_distillation_of_logits_for_the_main_one() -> None:
    entries = parse_objective("fitnet_two_stages").entries()
    assert {(key, weight, part.only_initial) for key, weight, part in entries} == {
        ("ce", 1.0, False),
        ("kd", 1.0, False),
        ("fitnet", 100.0, True),
    }


def test_a_hint_from_a_stage_that_does_not_exist_is_refused_with_those_that_do() -> None:
    objective = FitNet(hint=4)
    sentence = (
        r"matched stage 4, and there are 3: 1 is layer1, 2 is layer2, 3 is layer3\. Give hint a number among these"
    )
    with pytest.raises(SignalError, match=sentence):
        objective.build(signals(0, STUDENT), signals(1, TEACHER))


def test_sizes_that_no_convolution_serves_are_refused() -> None:
    with pytest.raises(
        SignalError, match="no convolution is defined from a student's map of 4×4 to a teacher's of 6×6"
    ):
        made(signals(0, {"a": (2, 4)}), signals(1, {"a": (2, 6)}), hint=1)


def test_a_forgotten_regressor_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"no regressor yet: call build\(student, teacher\) before"):
        fitnet(FitNet(), signals(2, STUDENT), signals(3, TEACHER))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hint": 0}, "hint must be a whole number of at least 1, got 0"),
        ({"hint": 2.0}, "hint must be a whole number of at least 1"),
        ({"hint": True}, "hint must be a whole number of at least 1"),
        ({"init_epochs": -1}, "init_epochs must be a whole number of at least 0, got -1"),
        ({"init_epochs": "30"}, "init_epochs must be a whole number of at least 0"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        FitNet(**options)

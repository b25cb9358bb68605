"""Variational information distillation against its formula (shared/spec/vision-methods.md, section 3.2, item 6)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import parse_objective
from limbeck.objectives.vid import VID
from limbeck.signals import Batch, Signals

STUDENT = {"layer1.0": (2, 4), "layer2.0": (3, 2)}
TEACHER = {"layer1.0": (4, 4), "layer2.0": (5, 2)}
Values = list[float]


def signals(seed: int, maps: dict[str, tuple[int, int]], n: int = 3, dtype: torch.dtype = torch.float64) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (n, channels, side, side) for name, (channels, side) in maps.items()}
    features = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return Signals(features={name: value.to(dtype) for name, value in features.items()})


def batch_of(size: int, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(
    student: dict[str, tuple[int, int]] = STUDENT, teacher: dict[str, tuple[int, int]] = TEACHER, double: bool = True
) -> VID:
    objective = VID()
    torch.manual_seed(0)
    objective.build(signals(0, student), signals(1, teacher))
    return objective.double() if double else objective


def vid(objective: VID, student: Signals, teacher: Signals, weight: Tensor | None = None) -> Tensor:
    size = len(next(iter(student.features.values())))
    return objective(student, teacher, batch_of(size, weight))["vid"]


def times(weight: Tensor, column: Values) -> Values:
    return [sum(w * x for w, x in zip(row, column, strict=True)) for row in weight.flatten(1).tolist()]


def slow_vid(gaussian, student: Tensor, teacher: Tensor) -> float:
    first, second, third = (gaussian.mean[number].weight for number in (0, 2, 4))
    variances = [math.log(1 + math.exp(raw)) + 1e-5 for raw in gaussian.raw_variances.tolist()]
    total, count = 0.0, 0
    n, _, height, width = teacher.shape
    for i in range(n):
        for h in range(height):
            for w in range(width):
                hidden = [max(0.0, value) for value in times(first, student[i, :, h, w].tolist())]
                hidden = [max(0.0, value) for value in times(second, hidden)]
                truth = teacher[i, :, h, w].tolist()
                for mean, target, variance in zip(times(third, hidden), truth, variances, strict=True):
                    total += ((mean - target) ** 2 / variance + math.log(variance)) / 2
                    count += 1
    return total / count


def test_value_is_the_formula_summed_over_stages() -> None:
    objective, student, teacher = made(), signals(2, STUDENT), signals(3, TEACHER)
    with torch.no_grad():
        for number, gaussian in enumerate(objective.gaussians):
            gaussian.raw_variances.copy_(torch.linspace(-3, 3 + number, len(gaussian.raw_variances)))
    expected = sum(
        slow_vid(gaussian, student.features[name], teacher.features[name])
        for gaussian, name in zip(objective.gaussians, STUDENT, strict=True)
    )
    assert vid(objective, student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_the_larger_map_is_averaged_before_the_convolutions() -> None:
    small, large = {"a": (2, 2)}, {"a": (2, 4)}
    objective = made(large, small)
    student, teacher = signals(2, large), signals(3, small)
    averaged = student.map(lambda maps: maps.reshape(3, 2, 2, 2, 2, 2).mean(dim=(3, 5)))
    torch.testing.assert_close(vid(objective, student, teacher), vid(objective, averaged, teacher))
    wide_teacher = signals(4, large)
    averaged_teacher = wide_teacher.map(lambda maps: maps.reshape(3, 2, 2, 2, 2, 2).mean(dim=(3, 5)))
    torch.testing.assert_close(vid(objective, averaged, wide_teacher), vid(objective, averaged, averaged_teacher))


def test_variances_start_at_5_one_for_each_of_the_teachers_channels() -> None:
    objective = made()
    for gaussian, (channels, _) in zip(objective.gaussians, TEACHER.values(), strict=True):
        assert gaussian.raw_variances.shape == (channels,)
        torch.testing.assert_close(gaussian.variances(), torch.full((channels,), 5.0, dtype=torch.float64))
    assert {name: value.item() for name, value in objective.monitors().items()} == {
        "variance1": pytest.approx(5.0, rel=1e-5),
        "variance2": pytest.approx(5.0, rel=1e-5),
    }


def test_with_maps_of_zeros_the_loss_is_half_the_logarithm_of_the_variances() -> None:
    objective = made({"a": (2, 4)}, {"a": (3, 4)})
    zeros = signals(2, {"a": (2, 4)}).map(torch.zeros_like), signals(3, {"a": (3, 4)}).map(torch.zeros_like)
    assert vid(objective, *zeros).item() == pytest.approx(math.log(5) / 2, rel=1e-5)


def test_the_variances_are_registered_and_learn_the_mean_square_of_the_error() -> None:
    # In a public code they are in a plain list, and stay at 5. The likeliest variance is the mean square error.
    objective, student = made(), signals(2, STUDENT)
    teacher = signals(3, TEACHER).map(lambda maps: 0.3 * maps)
    variances = {name for name, _ in objective.named_parameters() if "variances" in name}
    assert variances == {"gaussians.0.raw_variances", "gaussians.1.raw_variances"}
    assert variances <= objective.state_dict().keys()
    assert len(list(objective.parameters())) == 8
    learned = [gaussian.raw_variances for gaussian in objective.gaussians]
    optimizer = torch.optim.LBFGS(learned, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = vid(objective, student, teacher)
        loss.backward()
        return loss

    optimizer.step(closure)
    for gaussian, name in zip(objective.gaussians, STUDENT, strict=True):
        errors = (gaussian.mean(student.features[name]) - teacher.features[name]).square().mean(dim=(0, 2, 3))
        torch.testing.assert_close(gaussian.variances(), errors, rtol=1e-2, atol=1e-4)
    assert vid(objective, student, teacher) < 0


def test_weight_decay_leaves_the_variances_alone() -> None:
    assert made().no_weight_decay() == {"gaussians.0.raw_variances", "gaussians.1.raw_variances"}
    inside = parse_objective("vid")
    inside.build(signals(0, STUDENT), signals(1, TEACHER))
    assert inside.no_weight_decay() <= dict(inside.named_parameters()).keys()


def test_the_convolutions_have_no_bias_and_the_teachers_width() -> None:
    shapes = [tuple(p.shape) for name, p in made().named_parameters() if name.startswith("gaussians.0.mean")]
    assert shapes == [(4, 2, 1, 1), (4, 4, 1, 1), (4, 4, 1, 1)]


def test_samples_are_weighted() -> None:
    objective, student, teacher = made(), signals(2, STUDENT, 4), signals(3, TEACHER, 4)
    halves = [
        vid(objective, student.map(lambda v, r=rows: v[r]), teacher.map(lambda v, r=rows: v[r]))
        for rows in (slice(0, 2), slice(2, 4))
    ]
    weighted = vid(objective, student, teacher, weight=torch.tensor([2.0, 2.0, 0.5, 0.5]))
    torch.testing.assert_close(weighted, (2 * halves[0] + 0.5 * halves[1]) / 2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_maps_of_size_300_from_a_teacher_in_half_precision_have_a_finite_loss(half: torch.dtype) -> None:
    objective, student = made(double=False), signals(2, STUDENT, dtype=torch.float32)
    teacher = signals(3, TEACHER).map(lambda maps: 300 * maps.sign())
    exact = made()
    expected = vid(exact, student.map(Tensor.double), teacher).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vid(objective, student, teacher.map(lambda maps: maps.to(half)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_gradients_are_those_of_the_formula_for_student_convolutions_and_variances() -> None:
    objective, teacher = made(), signals(3, TEACHER, 2)
    student = signals(2, STUDENT, 2).map(lambda maps: maps.requires_grad_())
    learned = [*student.features.values(), *objective.parameters()]
    assert torch.autograd.gradcheck(lambda *_: vid(objective, student, teacher), learned)


def test_forgotten_convolutions_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no convolutions yet: call build\(student, teacher\) before"):
        vid(VID(), signals(2, STUDENT), signals(3, TEACHER))

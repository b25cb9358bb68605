"""OFD against its explicit formula: margins from the teacher's batch norm, and the half of the distance that counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch

OFD = objective_class("ofd")
Shape = tuple[int, int]
STUDENT, TEACHER = [(2, 4), (3, 2)], [(3, 4), (4, 2)]


def maps(seed: int, shapes: list[Shape], size: int = 3) -> Signals:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    before = {f"stage{i}": draw(size, c, side, side) for i, (c, side) in enumerate(shapes)}
    constants = {
        f"{name}.{kind}": draw(value.shape[1]) for name, value in before.items() for kind in ("shift", "scale")
    }
    return Signals(preactivations=before, constants=constants)


def batch(size: int = 3, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(student: Signals, teacher: Signals) -> Objective:
    torch.manual_seed(0)
    objective = OFD()
    objective.build(student, teacher)
    return objective.double()


def margin(shift: float, scale: float) -> float:
    """The margin that one channel with this batch norm gets."""
    one = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    values = {name: torch.tensor([value], dtype=torch.float64) for name, value in (("shift", shift), ("scale", scale))}
    teacher = Signals(preactivations={"a": one}, constants={f"a.{name}": value for name, value in values.items()})
    return made(Signals(preactivations={"a": one}), teacher).margin0.item()


def slow_margin(shift: float, scale: float) -> float:
    """Mean of the negative part of a normal distribution, by adding up 200,000 slices of it."""
    deviation, steps = abs(scale), 200_000
    low = min(shift, 0.0) - 12 * deviation
    width = (0.0 - low) / steps
    weighted = total = 0.0
    for step in range(steps):
        x = low + (step + 0.5) * width
        density = math.exp(-(((x - shift) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
        weighted, total = weighted + x * density * width, total + density * width
    return weighted / total if total > 1e-3 else -3 * deviation


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 0.5), (-2.0, 0.3), (1.0, -0.4), (3.0, 1.0), (3.2, 1.0)])
def test_the_margin_is_the_mean_of_the_negative_responses(shift: float, scale: float) -> None:
    assert margin(shift, scale) == pytest.approx(slow_margin(shift, scale), rel=1e-6)


def test_margins_by_hand() -> None:
    assert margin(0.0, 2.0) == pytest.approx(-2 * math.sqrt(2 / math.pi), rel=1e-12)
    # 3.09 deviations above zero the probability of a negative response passes 0.001.
    assert margin(3.0, 1.0) == pytest.approx(3 - 0.004431848 / 0.001349898, rel=1e-5)
    assert margin(3.1, 1.0) == margin(3.1, -1.0) == -3.0
    assert [margin(-1.5, 0.0), margin(1.5, 0.0), margin(0.0, 0.0)] == [-1.5, 0.0, 0.0]


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_margins_are_finite_and_not_positive(shift: float, scale: float) -> None:
    assert -math.inf < margin(shift, scale) <= 0
    assert margin(shift, scale) == margin(shift, -scale)


def slow_connector(head: nn.Module, value: Tensor) -> Tensor:
    """A 1×1 convolution and a batch norm, channel by channel."""
    assert isinstance(head, nn.Sequential)
    convolution, norm = head
    channels = []
    for out, weights in enumerate(convolution.weight.flatten(1).tolist()):
        mixed = sum(weight * value[:, c] for c, weight in enumerate(weights))
        deviation = math.sqrt((mixed - mixed.mean()).square().mean().item() + norm.eps)
        channels.append(norm.weight[out].item() * (mixed - mixed.mean().item()) / deviation + norm.bias[out].item())
    return torch.stack(channels, dim=1)


def halves(value: Tensor) -> Tensor:
    return (value[:, :, ::2, ::2] + value[:, :, 1::2, ::2] + value[:, :, ::2, 1::2] + value[:, :, 1::2, 1::2]) / 4


def slow_ofd(objective: Objective, student: Signals, teacher: Signals) -> list[float]:
    pairs = [(one, teacher.preactivations[name]) for name, one in student.preactivations.items()]
    values = [0.0] * len(pairs[0][0])
    for layer, (one, other) in enumerate(pairs):
        while one.shape[-1] > other.shape[-1]:
            one = halves(one)
        while other.shape[-1] > one.shape[-1]:
            other = halves(other)
        ours = slow_connector(objective.connectors[layer], one)
        for sample in range(len(values)):
            for channel in range(other.shape[1]):
                shift, scale = (
                    teacher.constants[f"stage{layer}.{kind}"][channel].item() for kind in ("shift", "scale")
                )
                m = margin(shift, scale)
                flat = (value[sample, channel].flatten().tolist() for value in (ours, other))
                for s, t in zip(*flat, strict=True):
                    cost = 0.0
                    if t > 0 or (s > t > m and t <= 0):
                        cost = (s - t) ** 2
                    elif t <= m and s > m:
                        cost = (s - m) ** 2
                    values[sample] += 2 ** -(len(pairs) - layer - 1) * cost
    return values


@pytest.mark.parametrize(
    "student",
    [STUDENT, [(2, 8), (3, 1)], [(3, 4), (4, 2)]],
    ids=["equal sizes", "larger and smaller", "equal shapes"],
)
def test_value_is_the_formula(student: list[Shape]) -> None:
    one, other = maps(0, student), maps(1, TEACHER)
    objective = made(one, other)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    values = slow_ofd(objective, one, other)
    assert objective(one, other, batch())["ofd"].item() == pytest.approx(sum(values) / 3, rel=1e-9)
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    weighted = objective(one, other, batch(weight=weight))["ofd"]
    assert weighted.item() == pytest.approx((2 * values[0] + 0.5 * values[2]) / 3, rel=1e-9)


def with_plain_heads(student: Signals, teacher: Signals) -> Objective:
    objective = made(student, teacher)
    objective.connectors = nn.ModuleList(nn.Identity() for _ in student.preactivations)
    return objective


def columns(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_hand_computed_and_which_responses_teach() -> None:
    # margin -sqrt(2/π) = -0.798; the five responses are one case each
    m = -math.sqrt(2 / math.pi)
    teacher = Signals(
        preactivations={"a": columns(2.0, -0.5, -0.5, -3.0, -3.0)},
        constants={"a.shift": torch.zeros(1, dtype=torch.float64), "a.scale": torch.ones(1, dtype=torch.float64)},
    )
    response = columns(0.5, 0.25, -0.75, 0.5, -1.0).requires_grad_()
    student = Signals(preactivations={"a": response})
    objective = with_plain_heads(student, teacher)
    loss = objective(student, teacher, batch(1))["ofd"]
    assert loss.item() == pytest.approx(1.5**2 + 0.75**2 + 0 + (0.5 - m) ** 2 + 0, rel=1e-12)
    loss.backward()
    expected = columns(2 * -1.5, 2 * 0.75, 0, 2 * (0.5 - m), 0)
    torch.testing.assert_close(response.grad, expected, rtol=1e-12, atol=0)


def test_each_stage_has_half_the_weight_of_the_next() -> None:
    constants = {f"{name}.{kind}": torch.ones(1) for name in "abc" for kind in ("shift", "scale")}
    losses = []
    for taught in "abc":
        teacher = Signals(preactivations={name: columns(1.0) for name in "abc"}, constants=constants)
        student = Signals(preactivations={name: columns(3.0 if name == taught else 1.0) for name in "abc"})
        losses.append(with_plain_heads(student, teacher)(student, teacher, batch(1))["ofd"].item())
    assert losses == [1.0, 2.0, 4.0]


def test_gradients_of_the_student_and_of_the_connectors() -> None:
    student, teacher = maps(0, [(2, 2), (2, 2)]), maps(1, [(2, 2), (3, 1)])
    objective = made(student, teacher)
    learned = [value.requires_grad_() for value in student.preactivations.values()] + list(objective.parameters())
    assert len(learned) == 2 + 6
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch())["ofd"], learned)


def test_margins_are_saved_learn_nothing_and_do_not_follow_the_batch() -> None:
    # Trap 7.C2: with the teacher in train mode the statistics behind the margins move.
    student, teacher = maps(0, STUDENT), maps(1, TEACHER)
    objective = made(student, teacher)
    assert {"margin0", "margin1"} <= objective.state_dict().keys()
    assert not any("margin" in name for name, _ in objective.named_parameters())
    before = objective.margin1.clone()
    teacher.constants["stage1.shift"].add_(1.0)
    objective(student, teacher.map(lambda value: 5 * value + 2), batch())["ofd"].backward()
    assert torch.equal(objective.margin1, before)


def test_constants_are_asked_for_in_build_alone() -> None:
    student, teacher = maps(0, STUDENT), maps(1, TEACHER)
    objective = made(student, teacher)
    without = replace(teacher, constants={})
    assert torch.equal(objective(student, without, batch())["ofd"], objective(student, teacher, batch())["ofd"])


@pytest.mark.parametrize("kind", ["shift", "scale"])
def test_a_map_without_a_batch_norm_before_it_is_refused_by_name(kind: str) -> None:
    teacher = maps(1, TEACHER)
    constants = {name: value for name, value in teacher.constants.items() if name != f"stage1.{kind}"}
    with pytest.raises(
        SignalError, match=r"needs a batch norm before each tapped map .* none is known before 'stage1'"
    ):
        made(maps(0, STUDENT), replace(teacher, constants=constants))


def test_it_starts_where_the_docstring_says() -> None:
    shapes = [(8, 16), (16, 8)]
    student, teacher = maps(0, shapes, size=16), maps(1, shapes, size=16)
    constants = {
        name: torch.zeros_like(value) if "shift" in name else value / value for name, value in teacher.constants.items()
    }
    teacher = replace(teacher, constants=constants)
    elements = 8 * 16 * 16 / 2 + 16 * 8 * 8
    loss = made(student, teacher)(student, teacher, batch(16))["ofd"]
    assert loss.item() == pytest.approx(1.6 * elements, rel=0.05)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match="at least 2, got 1"):
        OFD().check(maps(0, STUDENT, size=1), maps(1, TEACHER, size=1), sample_batch()[:1])


def test_forgotten_connectors_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no connectors yet: call build\(student, teacher\) before"):
        OFD()(maps(0, STUDENT), maps(1, TEACHER), batch())


def test_the_preset_has_the_public_weight() -> None:
    assert parse_objective("ofd").expression() == "ce() + 0.001*ofd()"

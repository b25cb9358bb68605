"""SemCKD against its explicit formula: attention from rows of Gram matrices, and the batch size that it fixes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import built, sample_batch, sample_signals

SemCKD = objective_class("semckd")
Shape = tuple[int, int]
STUDENT: list[Shape] = [(2, 4), (3, 2)]
TEACHER: list[Shape] = [(2, 8), (3, 4), (4, 1)]


def network(seed: int, shapes: list[Shape], size: int = 8) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(size, c, side, side, generator=generator, dtype=torch.float64) for c, side in shapes]
    # Other names in each network: no stage is matched.
    return Signals(features={f"stage{seed}_{i}": value for i, value in enumerate(drawn)})


def batch(size: int = 8, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(student: Signals, teacher: Signals) -> Objective:
    torch.manual_seed(0)
    objective = SemCKD()
    objective.build(student, teacher)
    return objective.double()


def slow_layer(layer: nn.Linear, row: list[float]) -> list[float]:
    return [
        sum(w * x for w, x in zip(weights, row, strict=True)) + bias
        for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def slow_row(network: nn.Module, maps: Tensor, sample: int, columns: int) -> list[float]:
    """Unit vector of one row of the Gram matrix, with zeros for the samples that are missing."""
    flat = maps.flatten(1).tolist()
    row = [sum(a * b for a, b in zip(flat[sample], other, strict=True)) for other in flat]
    row += [0.0] * (columns - len(row))
    first, _, second = network.layers
    out = slow_layer(second, [max(0.0, value) for value in slow_layer(first, row)])
    norm = math.sqrt(sum(value**2 for value in out))
    return [value / norm for value in out]


def slow_norm(layer: nn.BatchNorm2d, value: Tensor) -> Tensor:
    planes = []
    for channel in range(value.shape[1]):
        plane = value[:, channel]
        mean = plane.sum() / plane.numel()
        deviation = (((plane - mean) ** 2).sum() / plane.numel() + layer.eps).sqrt()
        planes.append(layer.weight[channel] * (plane - mean) / deviation + layer.bias[channel])
    return torch.stack(planes, dim=1)


def slow_projection(head: nn.Module, value: Tensor) -> Tensor:
    assert isinstance(head, nn.Sequential)
    enter, first, _, middle, second, _, leave = head
    value = torch.einsum("oc,bchw->bohw", enter.weight[:, :, 0, 0], value)
    value = slow_norm(first, value).clamp(min=0)
    height, width = value.shape[-2:]
    mixed = torch.zeros_like(value)
    for y in range(height):
        for x in range(width):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        kernel = middle.weight[:, :, 1 + dy, 1 + dx]
                        mixed[:, :, y, x] += value[:, :, y + dy, x + dx] @ kernel.T
    value = slow_norm(second, mixed).clamp(min=0)
    return torch.einsum("oc,bchw->bohw", leave.weight[:, :, 0, 0], value)


def halved_to(value: Tensor, side: int) -> Tensor:
    while value.shape[-1] > side:
        value = (value[:, :, ::2] + value[:, :, 1::2]) / 2
        value = (value[..., ::2] + value[..., 1::2]) / 2
    return value


@torch.no_grad()
def slow_semckd(objective: Objective, student: Signals, teacher: Signals, columns: int = 8) -> list[float]:
    ours, theirs = list(student.features.values()), list(teacher.features.values())
    values = [0.0] * len(ours[0])
    for s, one in enumerate(ours):
        projected = []
        for t, other in enumerate(theirs):
            side = min(one.shape[-1], other.shape[-1])
            head = objective.projections[f"{s}_{t}"]
            projected.append((slow_projection(head, halved_to(one, side)), halved_to(other, side)))
        for sample in range(len(values)):
            weights = [1.0]
            if len(theirs) > 1:
                query = slow_row(objective.queries[s], one, sample, columns)
                keys = [slow_row(objective.keys[t], other, sample, columns) for t, other in enumerate(theirs)]
                energies = [math.exp(sum(q * k for q, k in zip(query, key, strict=True))) for key in keys]
                weights = [energy / sum(energies) for energy in energies]
            for weight, (answer, other) in zip(weights, projected, strict=True):
                entries = zip(answer[sample].flatten().tolist(), other[sample].flatten().tolist(), strict=True)
                distance = sum((a - b) ** 2 for a, b in entries) / other[sample].numel()
                values[sample] += weight * distance / len(ours)
    return values


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(STUDENT, TEACHER), (TEACHER, STUDENT), (STUDENT, [(3, 2)]), ([(3, 2)], TEACHER)],
    ids=["more teacher stages", "more student stages", "one teacher stage", "one student stage"],
)
def test_value_is_the_formula(student: list[Shape], teacher: list[Shape]) -> None:
    one, other = network(0, student), network(1, teacher)
    objective = made(one, other)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    values = slow_semckd(objective, one, other)
    assert objective(one, other, batch())["semckd"].item() == pytest.approx(sum(values) / 8, rel=1e-9)
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    weighted = sum(w * value for w, value in zip(weight.tolist(), values, strict=True)) / 8
    assert objective(one, other, batch(weight=weight))["semckd"].item() == pytest.approx(weighted, rel=1e-9)


@pytest.mark.parametrize("size", [2, 5, 7])
def test_a_smaller_batch_is_filled_up_with_zeros(size: int) -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made(student, teacher)
    one, other = (signals.map(lambda value: value[:size]) for signals in (student, teacher))
    expected = sum(slow_semckd(objective, one, other)) / size
    assert objective(one, other, batch(size))["semckd"].item() == pytest.approx(expected, rel=1e-9)


def test_a_larger_batch_is_refused() -> None:
    objective = made(network(0, STUDENT), network(1, TEACHER))
    with pytest.raises(SignalError, match=r"semckd\(\) was built for batches of 8 samples, .* and got 9"):
        objective(network(0, STUDENT, 9), network(1, TEACHER, 9), batch(9))


def attention(objective: Objective, student: Signals, teacher: Signals) -> Tensor:
    assert isinstance(objective, SemCKD)
    weights: Tensor = objective._attention(list(student.features.values()), list(teacher.features.values()))  # type: ignore[attr-defined]
    return weights


def test_the_attention_is_a_distribution_over_the_teachers_stages() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    weights = attention(made(student, teacher), student, teacher)
    assert weights.shape == (8, 2, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(8, 2, dtype=torch.float64))
    # Products of unit vectors lie in [-1, 1], so no weight exceeds e² times another.
    assert (weights.amax(-1) / weights.amin(-1)).max() <= math.e**2 + 1e-9
    assert weights.std() > 1e-3


def test_equal_keys_share_the_attention_and_the_distance_is_the_mean() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made(student, teacher)
    for key in objective.keys:
        for parameter in key.parameters():
            nn.init.zeros_(parameter)
    torch.testing.assert_close(
        attention(objective, student, teacher), torch.full((8, 2, 3), 1 / 3, dtype=torch.float64)
    )


def test_the_students_gradient_flows_through_the_attention_and_through_the_projection() -> None:
    student, teacher = network(0, [(1, 2)], 3), network(1, [(1, 2), (2, 1)], 3)
    objective = made(student, teacher)
    learned = [value.requires_grad_() for value in student.features.values()]
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch(3))["semckd"], learned)
    maps = list(student.features.values())
    (gradient,) = torch.autograd.grad(attention(objective, student, teacher)[0, 0, 0], maps)
    assert gradient.abs().sum() > 1e-6


@pytest.mark.parametrize("teacher", [TEACHER, [(4, 2)]], ids=["three stages", "one stage"])
def test_no_layer_is_unused(teacher: list[Shape]) -> None:
    # Trap 7.C11: public codes register linear layers that no forward pass calls.
    one, other = network(0, STUDENT, 32), network(1, teacher, 32)
    objective = made(one, other)
    objective(one, other, batch(32))["semckd"].backward()
    named = dict(objective.named_parameters())
    assert named
    assert [name for name, p in named.items() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize(("size", "width"), [(64, 16), (8, 2), (4, 2), (2, 2)])
def test_the_vectors_have_a_quarter_of_the_batch_and_at_least_two_numbers(size: int, width: int) -> None:
    objective = made(network(0, STUDENT, size), network(1, TEACHER, size))
    for network_of_rows in (*objective.queries, *objective.keys):
        assert network_of_rows.layers[0].in_features == size
        assert network_of_rows.layers[-1].out_features == width


def test_maps_whose_products_overflow_in_half_precision_are_read_in_full() -> None:
    objective = built("semckd()")
    student = sample_signals(1).map(lambda value: 300 * value)
    teacher = sample_signals(2, maps={"stage1": (6, 8), "stage2": (8, 4)}).map(lambda value: 300 * value)
    with torch.autocast("cpu", dtype=torch.float16):
        weights = attention(objective.parts[0], student, teacher)
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()


def test_matched_names_play_no_part() -> None:
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    objective = made(student, teacher)
    renamed = replace(teacher, features=dict(zip("abc", teacher.features.values(), strict=True)))
    assert torch.equal(objective(student, renamed, batch())["semckd"], objective(student, teacher, batch())["semckd"])


def test_what_it_needs_and_what_it_keeps_to() -> None:
    assert SemCKD.needs == {"stages"}
    assert SemCKD.batch_coupled
    assert SemCKD.local_negatives
    assert not SemCKD.order_free
    student, teacher = network(0, STUDENT), network(1, TEACHER)
    SemCKD().check(student, teacher, batch())
    with pytest.raises(SignalError, match="needs the teacher's stages: name the layers with 'taps'"):
        SemCKD().check(student, replace(teacher, features={}), batch())


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match="at least 2, got 1"):
        SemCKD().check(network(0, STUDENT, 1), network(1, TEACHER, 1), sample_batch()[:1])


def test_forgotten_heads_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no heads yet: call build\(student, teacher\) before"):
        SemCKD()(network(0, STUDENT), network(1, TEACHER), batch())


def test_the_preset_is_the_authors_sum() -> None:
    assert parse_objective("semckd").expression() == "ce() + kd() + 400*semckd()"

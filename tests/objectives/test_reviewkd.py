"""ReviewKD against its explicit formula: fusion from deep to shallow, hierarchical distances, warm-up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, objective_class, parse_objective
from limbeck.objectives.reviewkd import _context_distance
from limbeck.signals import Batch, Signals

ReviewKD = objective_class("reviewkd")
Shape = tuple[int, int, int]
Planes = list[list[list[float]]]
STUDENT: list[Shape] = [(2, 8, 8), (3, 4, 4)]
TEACHER: list[Shape] = [(3, 8, 8), (4, 4, 4)]


def network(seed: int, shapes: list[Shape], embedding: int, size: int = 3) -> Signals:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=torch.float64)

    before = {f"stage{i}": draw(*shape) for i, shape in enumerate(shapes)}
    after = {name: value.relu() for name, value in before.items()}
    return Signals(features=after, preactivations=before, embedding=draw(embedding))


def batch(size: int = 3, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(student: Signals, teacher: Signals, **options: Any) -> Objective:
    torch.manual_seed(0)
    objective = ReviewKD(**options)
    objective.build(student, teacher)
    return objective.double()


def slow_convolution(layer: nn.Conv2d, value: Tensor) -> Tensor:
    """Stride 1, with zeros outside the map: sums of shifted maps, weight by weight."""
    reach = layer.kernel_size[0] // 2
    samples, channels, height, width = value.shape
    wide = torch.zeros(samples, channels, height + 2 * reach, width + 2 * reach, dtype=value.dtype)
    wide[:, :, reach : reach + height, reach : reach + width] = value
    planes = []
    for out, kernels in enumerate(layer.weight.tolist()):
        plane = torch.zeros(samples, height, width, dtype=value.dtype)
        for channel, kernel in enumerate(kernels):
            for y, row in enumerate(kernel):
                for x, weight in enumerate(row):
                    plane = plane + weight * wide[:, channel, y : y + height, x : x + width]
        planes.append(plane if layer.bias is None else plane + layer.bias[out])
    return torch.stack(planes, dim=1)


def slow_norm(layer: nn.BatchNorm2d, value: Tensor) -> Tensor:
    planes = []
    for channel in range(value.shape[1]):
        plane = value[:, channel]
        mean = plane.sum() / plane.numel()
        deviation = (((plane - mean) ** 2).sum() / plane.numel() + layer.eps).sqrt()
        planes.append(layer.weight[channel] * (plane - mean) / deviation + layer.bias[channel])
    return torch.stack(planes, dim=1)


def slow_pool(planes: Planes, height: int, width: int) -> Planes:
    """Means over the regions of an adaptive average pool."""

    def span(at: int, parts: int, whole: int) -> range:
        return range(at * whole // parts, -(-(at + 1) * whole // parts))

    pooled = []
    for plane in planes:
        rows = []
        for y in range(height):
            row = []
            for x in range(width):
                ys, xs = span(y, height, len(plane)), span(x, width, len(plane[0]))
                row.append(sum(plane[i][j] for i in ys for j in xs) / (len(ys) * len(xs)))
            rows.append(row)
        pooled.append(rows)
    return pooled


def slow_resize(value: Tensor, height: int, width: int) -> Tensor:
    """Repeated where it grows, averaged where it shrinks."""
    samples = []
    for planes in value.tolist():
        small = slow_pool(planes, min(height, len(planes[0])), min(width, len(planes[0][0])))
        samples.append(
            [
                [
                    [plane[y * len(plane) // height][x * len(plane[0]) // width] for x in range(width)]
                    for y in range(height)
                ]
                for plane in small
            ]
        )
    return torch.tensor(samples, dtype=value.dtype)


def slow_hierarchy(student: Planes, teacher: Planes) -> float:
    height, width = len(student[0]), len(student[0][0])

    def distance(one: Planes, other: Planes) -> float:
        entries = [
            (a - b) ** 2
            for p, q in zip(one, other, strict=True)
            for r, s in zip(p, q, strict=True)
            for a, b in zip(r, s, strict=True)
        ]
        return sum(entries) / len(entries)

    sides = [side for side in (4, 2, 1) if side < height and side < width]
    total, weights = distance(student, teacher), 1.0
    for k, side in enumerate(sides, start=1):
        total += 2**-k * distance(slow_pool(student, side, side), slow_pool(teacher, side, side))
        weights += 2**-k
    return total / weights


@torch.no_grad()
def slow_reviewkd(objective: Objective, student: Signals, teacher: Signals) -> list[float]:
    ours = [*student.features.values(), student.embedding[:, :, None, None]][::-1]
    theirs = [*teacher.preactivations.values(), teacher.embedding[:, :, None, None]][::-1]
    values, deeper = [0.0] * len(ours[0]), None
    for fusion, one, other in zip(objective.fusions, ours, theirs, strict=True):
        fused = slow_norm(fusion.enter[1], slow_convolution(fusion.enter[0], one))
        if deeper is not None:
            deeper = slow_resize(deeper, *one.shape[-2:])
            gates = slow_convolution(fusion.gates, torch.cat([fused, deeper], dim=1))
            gates = 1 / (1 + (-gates).exp())
            fused = gates[:, :1] * fused + gates[:, 1:] * deeper
        deeper = fused
        answer = slow_resize(fused, *other.shape[-2:])
        answer = slow_norm(fusion.leave[1], slow_convolution(fusion.leave[0], answer))
        for sample in range(len(values)):
            values[sample] += slow_hierarchy(answer[sample].tolist(), other[sample].tolist())
    return values


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (STUDENT, TEACHER),
        ([(2, 3, 3)], [(3, 5, 4)]),
        ([(2, 5, 5), (2, 3, 3), (3, 2, 2)], [(2, 4, 4), (3, 4, 4), (2, 3, 2)]),
    ],
    ids=["equal sizes", "one stage", "three stages of other sizes"],
)
def test_value_is_the_formula(student: list[Shape], teacher: list[Shape]) -> None:
    one, other = network(0, student, 4), network(1, teacher, 5)
    objective = made(one, other)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    values = slow_reviewkd(objective, one, other)
    assert objective(one, other, batch())["reviewkd"].item() == pytest.approx(sum(values) / 3, rel=1e-9)
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    weighted = objective(one, other, batch(weight=weight))["reviewkd"]
    assert weighted.item() == pytest.approx((2 * values[0] + 0.5 * values[2]) / 3, rel=1e-9)


@pytest.mark.parametrize("side", [1, 2, 4, 5, 8])
def test_the_hierarchy_of_a_constant_difference_is_its_square(side: int) -> None:
    one = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(_context_distance(one + 3, one), torch.full((2,), 9.0, dtype=torch.float64))


@pytest.mark.parametrize(("side", "weights"), [(8, 1 + 1 / 2 + 1 / 4 + 1 / 8), (4, 1 + 1 / 2 + 1 / 4), (2, 1 + 1 / 2)])
def test_differences_that_average_out_count_in_the_full_size_alone(side: int, weights: float) -> None:
    rows = torch.arange(side)
    board = (1.0 - 2 * ((rows[:, None] + rows) % 2)).expand(1, 1, side, side)
    assert _context_distance(board, torch.zeros_like(board)).item() == pytest.approx(1 / weights)


def test_the_loss_grows_over_the_first_epochs() -> None:
    student, teacher = network(0, STUDENT, 4), network(1, TEACHER, 5)
    objective = made(student, teacher)
    full = objective(student, teacher, batch())["reviewkd"]
    where = objective.warmup.data_ptr()
    for epoch, share in ((1, 0.05), (10, 0.5), (20, 1.0), (21, 1.0), (240, 1.0), (2, 0.1)):
        objective.start_epoch(epoch)
        assert objective(student, teacher, batch())["reviewkd"].item() == pytest.approx(share * full.item(), rel=1e-9)
        assert objective.monitors()["warmup"].item() == pytest.approx(share)
        # In place: a compiled step reads the same memory.
        assert objective.warmup.data_ptr() == where


def test_the_warm_up_is_told_through_a_sum_and_saved() -> None:
    total = parse_objective("ce + 5*reviewkd(warmup_epochs=4)")
    total.start_epoch(1)
    assert total.monitors()["reviewkd.warmup"].item() == 0.25
    loaded = parse_objective("ce + 5*reviewkd(warmup_epochs=4)")
    loaded.load_state_dict(total.state_dict())
    assert loaded.monitors()["reviewkd.warmup"].item() == 0.25


def test_without_a_warm_up_it_is_whole_from_the_first_epoch() -> None:
    objective = ReviewKD(warmup_epochs=0)
    objective.start_epoch(1)
    assert objective.monitors()["warmup"].item() == 1


def test_epochs_that_begin_do_not_compile_the_step_again() -> None:
    student, teacher = network(0, [(2, 2, 2)], 2), network(1, [(2, 2, 2)], 2)
    objective = made(student, teacher)
    torch.compiler.reset()
    graphs: list[Any] = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(objective, backend=count, fullgraph=True)
    values = []
    for epoch in (1, 2, 3):
        objective.start_epoch(epoch)
        values.append(compiled(student, teacher, batch())["reviewkd"].item())
    assert values[1:] == pytest.approx([2 * values[0], 3 * values[0]])
    assert len(graphs) == 1


def test_a_shallow_stage_of_the_teacher_teaches_the_deep_stages_of_the_student() -> None:
    student, teacher = network(0, STUDENT, 4), network(1, TEACHER, 5)
    student = student.map(lambda value: value.detach().requires_grad_())
    objective = made(student, teacher)
    shallow = teacher.preactivations["stage0"]
    gradients = []
    for other in (shallow, -shallow):
        changed = replace(teacher, preactivations={**teacher.preactivations, "stage0": other})
        loss = objective(student, changed, batch())["reviewkd"]
        gradients.append(torch.autograd.grad(loss, [student.embedding, student.features["stage1"]]))
    for one, other in zip(*gradients, strict=True):
        assert not torch.allclose(one, other, rtol=1e-3)


def test_it_reads_the_students_maps_after_and_the_teachers_before_the_relu() -> None:
    student, teacher = network(0, STUDENT, 4), network(1, TEACHER, 5)
    objective = made(student, teacher)
    expected = objective(student, teacher, batch())["reviewkd"]
    zeros = {name: torch.zeros_like(value) for name, value in student.preactivations.items()}
    empty = {name: torch.zeros_like(value) for name, value in teacher.features.items()}
    same = objective(replace(student, preactivations=zeros), replace(teacher, features=empty), batch())["reviewkd"]
    assert torch.equal(same, expected)


def test_gradients_of_the_student_and_of_the_heads() -> None:
    student, teacher = network(0, [(1, 2, 2)], 2), network(1, [(2, 2, 2)], 1)
    objective = made(student, teacher)
    learned = [student.features["stage0"].detach().requires_grad_(), student.embedding.detach().requires_grad_()]
    student = replace(student, features={"stage0": learned[0]}, embedding=learned[1])
    learned += list(objective.parameters())
    assert len(learned) == 2 + 6 + 8
    assert torch.autograd.gradcheck(lambda *_: objective(student, teacher, batch())["reviewkd"], learned)


@pytest.mark.parametrize(("embedding", "width"), [(4, 4), (512, 512), (1280, 512)])
def test_the_common_width_is_that_of_the_embedding_up_to_512(embedding: int, width: int) -> None:
    student, teacher = network(0, STUDENT, embedding), network(1, TEACHER, 5)
    widths = {fusion.enter[0].out_channels for fusion in made(student, teacher).fusions}
    assert widths == {width}


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match="at least 2, got 1"):
        ReviewKD().check(network(0, STUDENT, 4, size=1), network(1, TEACHER, 5, size=1), batch(1))


def test_networks_without_matched_stages_are_refused() -> None:
    teacher = network(1, TEACHER, 5)
    other = replace(teacher, features={"far": teacher.features["stage0"]})
    with pytest.raises(SignalError, match="compares features stage by stage, and none of the student's"):
        ReviewKD().check(network(0, STUDENT, 4), other, batch())


def test_forgotten_heads_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no heads yet: call build\(student, teacher\) before"):
        ReviewKD()(network(0, STUDENT, 4), network(1, TEACHER, 5), batch())


@pytest.mark.parametrize("epochs", [-1, 1.5, True, "20", math.inf])
def test_epochs_are_a_whole_number(epochs: object) -> None:
    with pytest.raises(SettingError, match="warmup_epochs must be a whole number of at least 0"):
        ReviewKD(warmup_epochs=epochs)

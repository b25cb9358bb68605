"""Slow, explicit references of what AFD and RTK share: maps of two networks, values of stages, similarities by heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.objectives import Objective, parse_objective
from limbeck.signals import Batch, Signals

Shape = tuple[int, int]
Rows = list[list[float]]
STUDENT: list[Shape] = [(2, 4), (3, 2)]
TEACHER: list[Shape] = [(2, 8), (3, 3), (4, 1)]
SIZE = 4
of_any_depths = pytest.mark.parametrize(
    ("student", "teacher"),
    [(STUDENT, TEACHER), (TEACHER, STUDENT), (STUDENT, [(3, 2)]), ([(3, 2)], TEACHER)],
    ids=["more teacher stages", "more student stages", "one teacher stage", "one student stage"],
)


def network(seed: int, shapes: list[Shape], size: int = SIZE, prefix: str = "") -> Signals:
    """Maps of (channels, side) each. The names of the stages are those of no other prefix."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(size, c, side, side, generator=generator, dtype=torch.float64) for c, side in shapes]
    return Signals(features={f"{prefix}layer{i}.0": value for i, value in enumerate(drawn)})


def batch(size: int = SIZE, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def made(text: str, student: Signals, teacher: Signals) -> Any:
    """The objective alone, with heads whose numbers are all drawn: the batch norms would start at 1 and 0."""
    torch.manual_seed(0)
    (part,) = parse_objective(text).parts
    assert isinstance(part, Objective)
    part.build(student, teacher)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return part.double()


def distances(student: Signals, teacher: Signals) -> Tensor:
    """Of each pair of stages, (student's, teacher's): the mean over the samples."""
    return losses.attention_distances(list(student.features.values()), list(teacher.features.values())).mean(dim=0)


def slow_value(maps: Tensor, sample: int, side: int) -> list[float]:
    """Mean squares over the channels, averaged over regions to a side, of unit length."""
    channels = maps[sample].tolist()
    old = len(channels[0])
    square = [[sum(c[y][x] ** 2 for c in channels) / len(channels) for x in range(old)] for y in range(old)]

    def region(place: int) -> range:
        return range(place * old // side, -((-(place + 1) * old) // side))

    plane = [
        sum(square[y][x] for y in region(row) for x in region(column)) / (len(region(row)) * len(region(column)))
        for row in range(side)
        for column in range(side)
    ]
    length = math.sqrt(sum(value * value for value in plane))
    return [value / length for value in plane]


def slow_distance(student: Tensor, teacher: Tensor, sample: int) -> float:
    side = teacher.shape[-1]
    pairs = zip(slow_value(student, sample, side), slow_value(teacher, sample, side), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) / side**2


def _linear(weight: Tensor, rows: Rows) -> Rows:
    return [[sum(w * x for w, x in zip(line, row, strict=True)) for line in weight.tolist()] for row in rows]


def _norm(norm: nn.BatchNorm1d, rows: Rows) -> Rows:
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / len(column) + norm.eps)
        shift = 0.0 if norm.bias is None else norm.bias[number].item()
        columns.append([norm.weight[number].item() * (x - mean) / deviation + shift for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _means(maps: Tensor) -> Rows:
    return [[sum(map(sum, plane)) / (len(plane) * len(plane[0])) for plane in sample] for sample in maps.tolist()]


def slow_similarities(heads: Any, asking: list[Tensor], answering: list[Tensor]) -> list[Rows]:
    """[sample][query][key]."""
    queries = [_norm(h[1], _linear(h[0].weight, _means(m))) for h, m in zip(heads.queries, asking, strict=True)]
    keys = [_norm(h[1], _linear(h[0].weight, _means(m))) for h, m in zip(heads.keys, answering, strict=True)]
    samples, width = len(queries[0]), heads.dim
    positive = [[max(0.0, x) for x in keys[k][i]] for i in range(samples) for k in range(len(keys))]
    forms = _norm(heads.forms[1], _linear(heads.forms[0].weight, positive))
    places = [
        [sum(a * b for a, b in zip(one, other, strict=True)) for other in heads.key_places.tolist()]
        for one in heads.query_places.tolist()
    ]
    return [
        [
            [
                (sum(queries[q][i][n] * forms[i * len(keys) + k][q * width + n] for n in range(width)) + places[q][k])
                / math.sqrt(width)
                for k in range(len(keys))
            ]
            for q in range(len(queries))
        ]
        for i in range(samples)
    ]


def softmax(values: list[float]) -> list[float]:
    energies = [math.exp(value) for value in values]
    return [energy / sum(energies) for energy in energies]

"""Which stages of the teacher the stages of the student learned from, where an objective learned to choose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import isclose
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from limbeck.errors import is_finite
from limbeck.report.material import Material, Method
from limbeck.report.plates import Palette, Plate, add_colour_bar, clipped, style
from limbeck.report.read import Run
from limbeck.report.sections import Section

# As limbeck.objectives._stage_attention names its monitors, after the name of the objective within its sum.
_NAME = re.compile(r"(?P<objective>[^.]+)\.attention\.(?P<student>[^.]+)\.(?P<teacher>[^.]+)")
_COLOURS = "viridis"
_DARK, _LIGHT = "#111111", "#ffffff"  # on bright and on dark cells; matplotlib leaves out a plain black
_WRITTEN = 8  # rows and columns up to which each cell has its number
_TOLD = 3  # how many of a stage's weights are told in words

Pairs = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Attention:
    """Mean weights, over ``seeds`` runs. weights: a row for each stage of the student, a column for each of the teacher."""

    student: Sequence[str]
    teacher: Sequence[str]
    weights: Sequence[Sequence[float]]
    seeds: int
    epochs: Sequence[float]


def attention_section(material: Material) -> list[Section]:
    """A heat map for each method and each of its objectives that learned attention over stages; none where nothing did."""
    numbers = count()
    plates = tuple(
        _plate(f"attention{next(numbers)}", method, objective, found)
        for method in material.methods
        for objective, found in _of_method(method.runs)
    )
    if not plates:
        return []
    lead = (
        "How much each stage of the student (rows) learned from each stage of the teacher (columns), by the attention that was "
        "learned beside the student: the mean over the samples of the last epoch and over the runs. The colours mean the same "
        "in all figures. A stage of the teacher goes by the name of the student's stage that is matched with it."
    )
    return [Section("attention", "Learned attention between stages", plates, lead=lead)]


def _of_method(runs: Sequence[Run]) -> Iterator[tuple[str, Attention]]:
    """By objective; over the runs whose stages are the same, the first run's."""
    read = [(run, _last(run.metrics)) for run in runs]
    for objective in dict.fromkeys(name for _, found in read for name in found):
        members = [found[objective] for _, found in read if objective in found]
        alike = [(epoch, pairs) for epoch, pairs in members if pairs.keys() == members[0][1].keys()]
        if attention := _mean(alike):
            yield objective, attention


def _last(metrics: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, Pairs]]:
    """The last record's epoch and weights by objective; one with a weight that is no number counts as none."""
    found: dict[str, tuple[float, Pairs]] = {}
    for record in metrics:
        if record["split"] != "train":
            continue
        weights: dict[str, Pairs] = {}
        for name, value in record.items():
            if match := _NAME.fullmatch(name):
                weights.setdefault(match["objective"], {})[_stage(match["student"]), _stage(match["teacher"])] = value
        for objective, pairs in weights.items():
            if all(value is not None and is_finite(value) for value in pairs.values()):
                found[objective] = (record["epoch"], pairs)
    return found


def _stage(name: str) -> str:
    return name.replace("/", ".")


def _mean(members: Sequence[tuple[float, Pairs]]) -> Attention | None:
    names = members[0][1].keys()
    student, teacher = (list(dict.fromkeys(side)) for side in zip(*names, strict=True))
    if len(names) != len(student) * len(teacher):
        return None  # a file that was cut or written by hand
    weights = [[sum(pairs[s, t] for _, pairs in members) / len(members) for t in teacher] for s in student]
    return Attention(student, teacher, weights, len(members), sorted({epoch for epoch, _ in members}))


def _plate(name: str, method: Method, objective: str, found: Attention) -> Plate:
    where = f"{method.row.student} on {method.row.data}"
    runs = f"mean of {found.seeds} runs" if found.seeds > 1 else "one run"
    epoch = " to ".join(f"{epoch:g}" for epoch in dict.fromkeys((found.epochs[0], found.epochs[-1])))
    return Plate(
        name,
        f"{method.row.label}: {objective}",
        f"{where}, {runs}, epoch {epoch}{_direction(found)}",
        f"Learned attention of {objective} in {method.row.label}, {where}, {runs}, epoch {epoch}. {_in_words(found)}.",
        partial(_heat, found=found),
        wide=len(found.teacher) > _WRITTEN,
    )


def _direction(found: Attention) -> str:
    """Which network's stages divide a weight of 1; nothing where neither's do, or both."""
    rows, columns = (
        all(isclose(sum(line), 1, abs_tol=1e-3) for line in lines)
        for lines in (found.weights, list(zip(*found.weights, strict=True)))
    )
    if rows == columns:
        return ""
    return "; each row sums to 1" if rows else "; each column sums to 1"


def _in_words(found: Attention) -> str:
    rows = []
    for stage, weights in zip(found.student, found.weights, strict=True):
        largest = sorted(zip(weights, found.teacher, strict=True), key=lambda pair: -pair[0])
        told = ", ".join(f"{other} {weight:.2f}" for weight, other in largest[:_TOLD])
        left = len(largest) - _TOLD
        rows.append(f"The student's {stage} with the teacher's {told}" + (f" and {left} less" if left > 0 else ""))
    return "; ".join(rows)


def _heat(palette: Palette, found: Attention) -> Figure:
    rows, columns = len(found.student), len(found.teacher)
    with rc_context(style(palette)):
        figure = Figure(figsize=(max(4.4, 1.6 + 0.34 * columns), max(2.2, 1.3 + 0.42 * rows)), layout="constrained")
        axes = figure.subplots()
        # Pixels as they are: the file stays small, and no viewer smooths them.
        image = axes.imshow(found.weights, cmap=_COLOURS, vmin=0, vmax=1, interpolation="none", aspect="auto")
        names = [clipped(name, 16) for name in found.teacher]
        upright = sum(map(len, names)) > 40
        axes.set_xticks(range(columns), names, rotation=90 if upright else 0)
        axes.set_yticks(range(rows), [clipped(name, 16) for name in found.student])
        axes.set_xlabel("teacher's stage")
        axes.set_ylabel("student's stage")
        if rows <= _WRITTEN and columns <= _WRITTEN:
            _write(axes, found)
        add_colour_bar(figure, axes, image, "mean weight", palette)
        return figure


def _write(axes: Any, found: Attention) -> None:
    for row, weights in enumerate(found.weights):
        for column, weight in enumerate(weights):
            colour = _DARK if weight > 0.6 else _LIGHT
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour, fontsize=9)

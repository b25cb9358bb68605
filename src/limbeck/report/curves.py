"""From the metrics of several runs to lines over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from limbeck.errors import is_finite
from limbeck.report.figures import Series
from limbeck.report.read import Run


def validation_curve(label: str, runs: Sequence[Run]) -> Series | None:
    """Validation accuracy in percent over epochs; None when no run was validated."""
    points = [
        [(x, 100 * record["accuracy"]) for x, record in _at_epochs(run) if record["split"] == "validation"]
        for run in runs
    ]
    return _series(label, points)


def loss_curves(runs: Sequence[Run]) -> list[Series]:
    """Each term of the loss as it was summed, and the loss itself where it has several."""
    names: dict[str, None] = {}
    for run in runs:
        for _, record in _at_epochs(run):
            names.update(dict.fromkeys(_terms(record)))
    terms = [name for name in names if name != "loss"]
    wanted = ["loss", *terms] if len(terms) > 1 else terms
    lines = [line for name in wanted if (line := _series(name, [_term(run, name) for run in runs])) is not None]
    return [replace(line, number=number) for number, line in enumerate(lines)]


def _term(run: Run, name: str) -> list[tuple[float, float]]:
    # A loss that is not finite has no place in a figure.
    points = [(x, record[name]) for x, record in _at_epochs(run) if name in _terms(record)]
    return [(x, value) for x, value in points if value is not None and is_finite(value)]


def _terms(record: dict[str, Any]) -> list[str]:
    """The loss and its terms: they stand first in a record, and training accuracy, monitors and learning rate after."""
    keys = list(record)
    if record["split"] != "train" or "loss" not in keys:
        return []
    end = keys.index("train_accuracy") if "train_accuracy" in keys else len(keys)
    return keys[keys.index("loss") : end]


def _at_epochs(run: Run) -> list[tuple[float, dict[str, Any]]]:
    """Each record with its epoch counted from the start of the first stage."""
    ends: dict[int, float] = {}
    for record in run.metrics:
        stage = record.get("stage", 0)
        ends[stage] = max(ends.get(stage, 0.0), record["epoch"])
    before = {stage: sum(end for other, end in ends.items() if other < stage) for stage in ends}
    return [(before[record.get("stage", 0)] + record["epoch"], record) for record in run.metrics]


def _series(label: str, points: Sequence[Sequence[tuple[float, float]]]) -> Series | None:
    """Over the epochs that every run with points has, so that a mean never changes who is in it."""
    runs = [dict(run) for run in points if run]
    if not runs:
        return None
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    if not shared:
        return None
    columns = [[run[x] for run in runs] for x in shared]
    means = [sum(column) / len(column) for column in columns]
    return Series(label, shared, means, [min(column) for column in columns], [max(column) for column in columns])

"""Reads run folders: finished, unfinished and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from limbeck.runs import CONFIG, METRICS, RESULT, Result, read_metrics

# Where, how and from what a run was started, or what its result says itself: no reason to call it another method.
_SAME_METHOD = {
    *("seed", "name", "runs_dir", "data_dir", "workers", "trackers", "download", "log_steps", "checkpoint_epochs"),
    *("checkpoint_steps", "validate_epochs", "plugins", "objective", "data", "epochs"),
    *("device", "compile", "skip_unreadable", "label_smoothing"),
}
_RESULT = TypeAdapter(Result)


@dataclass(frozen=True)
class Run:
    """A run folder. result: None while it is not finished. problem: why it cannot be read, None when it can."""

    path: Path
    result: Result | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def progress(self) -> str:
        """How far an unfinished run has come."""
        last = self.metrics[-1] if self.metrics else None
        accuracy = [record["accuracy"] for record in self.metrics if record.get("split") == "validation"]
        if last is None:
            return "no step logged yet"
        epochs = self.settings.get("epochs")
        where = f"step {last['step']}, epoch {last['epoch']:g}" + (f" of {epochs}" if epochs else "")
        return where + (f", validation accuracy {accuracy[-1]:.2%}" if accuracy else "")


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders among the paths, or one level below those that are none themselves, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        below = sorted(child.parent for child in path.glob(f"*/{CONFIG}")) if path.is_dir() else []
        found += [path] if (path / CONFIG).exists() or not below else below
    return list(dict.fromkeys(found))


def read_run(path: Path) -> Run:
    """What a folder holds. A damaged one is no error here: ``problem`` says what is wrong with it."""
    if not path.is_dir():
        return Run(path, problem="there is no such folder")
    if not any((path / name).exists() for name in (CONFIG, METRICS, RESULT)):
        return Run(path, problem="it is not a run's folder: it has neither settings, nor metrics, nor a result")
    settings = _settings(path / CONFIG)
    try:
        metrics = _metrics(path)
        if not (path / RESULT).exists():
            return Run(path, settings=settings, metrics=metrics)
        return Run(path, read_result(path / RESULT), settings, metrics)
    except ValueError as error:
        return Run(path, settings=settings, problem=str(error))


def read_result(path: Path) -> Result:
    """The result in a file. Raises ValueError, in a sentence, when it is damaged or is no result."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _RESULT.validate_python(values)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{path.name} is no result: {where}: {first['msg'].lower()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # a page without the settings is better than none
    return values if isinstance(values, dict) else {}


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        records = read_metrics(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{METRICS} cannot be read: {error}") from None
    if not all(isinstance(record, dict) and {"split", "step", "epoch"} <= record.keys() for record in records):
        raise ValueError(f"{METRICS} is damaged: a line is no record of metrics")
    return records


def variants(runs: list[Run]) -> list[str]:
    """For each run, the settings that set it apart from others of the same objective, networks, data and epochs.

    Networks of one name can start from different weights: the texts that name them count, as in ``resnet32x4@FILE``.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    texts = []
    for run in runs:
        twins = groups[_identity(run)]
        names = [name for name in run.settings if name not in _SAME_METHOD]
        differing = [n for n in names if len({json.dumps(t.settings.get(n), default=str) for t in twins}) > 1]
        texts.append(", ".join(f"{name}={run.settings[name]}" for name in differing))
    return texts


def _identity(run: Run) -> tuple[Any, ...]:
    result = run.result
    assert result is not None
    return result.data, result.student, result.teacher, result.objective, result.epochs

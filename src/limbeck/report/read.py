"""Reads run folders: finished, unfinished, failed and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from limbeck.errors import Failure
from limbeck.runs import CONFIG, FAILURE, METRICS, RESULT, Result, read_metrics

# Where, how and from what a run was started, or what its result says itself: no reason to call it another method.
_SAME_METHOD = {
    *(
        "seed",
        "order_seed",
        "name",
        "runs_dir",
        "data_dir",
        "workers",
        "trackers",
        "download",
        "log_steps",
        "checkpoint_epochs",
    ),
    *("checkpoint_steps", "validate_epochs", "plugins", "objective", "data", "epochs"),
    *("device", "compile", "skip_unreadable", "label_smoothing", "teacher_cache", "cache_check"),
}
_RESULT = TypeAdapter(Result)
_COMPARED = "objectives"  # a setting that comparisons alone have


_FAILURE = TypeAdapter(Failure)


@dataclass(frozen=True)
class Run:
    """A run folder.

    result: None while it is not finished. failure: why it ended without a result. problem: why the folder cannot be read,
    None when it can.
    """

    path: Path
    result: Result | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    failure: Failure | None = None

    @property
    def name(self) -> str:
        """The folder's name; of a comparison's member ``COMPARISON/MEMBER``."""
        # Nothing else has settings both in a folder and one level below it.
        parent = self.path.parent
        return f"{parent.name}/{self.path.name}" if (parent / CONFIG).exists() else self.path.name

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
    """Run folders among the paths, or below those that are none themselves, in the order of their names.

    A comparison's folder has settings too, but its runs lie one level below: they stand for it, also where the comparison
    itself lies in one of the paths. A comparison without any stands for itself.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / CONFIG).exists() else _runs_in(path)
        found += [run for folder in inside for run in _members(folder)] or [path]
    return list(dict.fromkeys(found))


def _members(path: Path) -> list[Path]:
    is_comparison = _COMPARED in _settings(path / CONFIG)
    return (_runs_in(path) if is_comparison else []) or [path]


def _runs_in(path: Path) -> list[Path]:
    return sorted({file.parent for name in (CONFIG, FAILURE) for file in path.glob(f"*/{name}")})


def read_run(path: Path) -> Run:
    """What a folder holds. A damaged one is no error here: ``problem`` says what is wrong with it."""
    if not path.is_dir():
        return Run(path, problem="there is no such folder")
    if not any((path / name).exists() for name in (CONFIG, METRICS, RESULT, FAILURE)):
        return Run(path, problem="it is not a run's folder: it has neither settings, nor metrics, nor a result")
    settings = _settings(path / CONFIG)
    if _COMPARED in settings:
        return Run(path, settings=settings, problem="it is a comparison of which no run has begun")
    # A member that failed and was finished later has a result, and that is what counts.
    finished = (path / RESULT).exists()
    failure = None if finished else _failure(path / FAILURE)
    try:
        metrics = _metrics(path)
        return Run(path, read_result(path / RESULT) if finished else None, settings, metrics, failure=failure)
    except ValueError as error:
        if failure is not None:
            return Run(path, settings=settings, failure=failure)
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


def _failure(path: Path) -> Failure | None:
    if not path.exists():
        return None
    try:
        return _FAILURE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Failure(f"{path.name} is damaged, so the reason is not known")


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

"""Reads run folders: finished, unfinished, failed and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from limbeck.errors import Failure, is_finite
from limbeck.report.planned import planned
from limbeck.runs import CONFIG, EVALUATION, FAILURE, METRICS, RESULT, Result, read_metrics

_RESULT = TypeAdapter(Result)
_COMPARED = "objectives"  # a setting that comparisons alone have
_FAILURE = TypeAdapter(Failure)


@dataclass(frozen=True)
class Run:
    """A run folder.

    result: None while it is not finished. failure: why it ended without a result. problem: why the folder cannot be read,
    None when it can. plan: of an unfinished run, a result without figures, where its settings tell what it will be of.
    """

    path: Path
    result: Result | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    failure: Failure | None = None
    plan: Result | None = None

    @property
    def name(self) -> str:
        """The folder's name; of a comparison's member ``COMPARISON/MEMBER``."""
        # Nothing else has settings both in a folder and one level below it.
        parent = self.path.parent
        return f"{parent.name}/{self.path.name}" if (parent / CONFIG).exists() else self.path.name

    @property
    def is_unfinished(self) -> bool:
        """Whether it goes on, or was stopped: it can be read, and has neither a result nor a failure."""
        return self.problem is None and self.failure is None and self.result is None

    @property
    def about(self) -> Result | None:
        """What tells who is taught what: the result, or the plan of an unfinished run."""
        return self.result or self.plan

    @property
    def validated(self) -> list[float]:
        """The accuracies on the validation split so far."""
        return [record["accuracy"] for record in self.metrics if record["split"] == "validation"]

    def progress(self) -> str:
        """How far an unfinished run has come."""
        last = self.metrics[-1] if self.metrics else None
        if last is None:
            return "no step logged yet"
        epochs = self.settings.get("epochs")
        where = f"step {last['step']}, epoch {last['epoch']:g}" + (f" of {epochs}" if epochs else "")
        return where + (f", validation accuracy {self.validated[-1]:.2%}" if self.validated else "")


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders among the paths, or below those that are none themselves, in the order of their names.

    A comparison's folder has settings too, but its runs lie one level below: they stand for it, also where the comparison
    itself lies in one of the paths. A comparison without any stands for itself. So does any other path, so that it is named
    as what cannot be read, unless it is or holds an evaluation.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / CONFIG).exists() else _runs_in(path)
        found += [run for folder in inside for run in _members(folder)] or ([] if _has_evaluations(path) else [path])
    return list(dict.fromkeys(found))


def _members(path: Path) -> list[Path]:
    is_comparison = _COMPARED in _settings(path / CONFIG)
    return (_runs_in(path) if is_comparison else []) or [path]


def find_evaluations(paths: Iterable[Path], runs: Iterable[Path]) -> list[Path]:
    """Files of evaluations: those among the paths, and those in them, in the runs, and in the comparisons of the runs.

    Args:
        paths: what the report is asked for. runs: the folders of :func:`find_runs`.
    """
    found: list[Path] = []
    for path in paths:
        if is_evaluation(path):
            found.append(path)
            continue
        inside = [path, *(folder for run in runs if path in run.parents for folder in (run.parent, run))]
        found += [folder / EVALUATION for folder in inside] + _evaluations_below(path)
    # Whatever lies there, a folder too: what cannot be read is named.
    return [path for path in dict.fromkeys(found) if path.exists()]


def _has_evaluations(path: Path) -> bool:
    return is_evaluation(path) or (path / EVALUATION).exists() or bool(_evaluations_below(path))


def _evaluations_below(path: Path) -> list[Path]:
    return sorted(path.glob(f"*/{EVALUATION}"))


def is_evaluation(path: Path) -> bool:
    """Whether a path that was given is an evaluation's file rather than a folder."""
    return path.suffix == ".json" and path.is_file()


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
        result = read_result(path / RESULT) if finished else None
        plan = planned(settings) if result is None and failure is None else None
        return Run(path, result, settings, metrics, failure=failure, plan=plan)
    except ValueError as error:
        if failure is not None:
            return Run(path, settings=settings, failure=failure)
        return Run(path, settings=settings, problem=str(error))


def read_result(path: Path) -> Result:
    """The result in a file. Raises ValueError, in a sentence, when it is damaged or is no result."""
    try:
        result = _RESULT.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{path.name} is no result: {where}: {first['msg'].lower()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if wrong := _impossible(result):
        raise ValueError(f"{path.name} is no result: {wrong}")
    return result


def _impossible(result: Result) -> str | None:
    """What no run can have found, in words: figures that others are computed from would carry it on."""
    shares = {name: getattr(result, name) for name in ("validation_last", "validation_best", "teacher_validation")}
    for name, scores in (("test", result.test), ("teacher_test", result.teacher_test)):
        if scores is not None:
            if "accuracy" not in scores:
                return f"{name}: there is no accuracy"
            shares |= {f"{name}.{key}": scores[key] for key in ("accuracy", "agreement") if key in scores}
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            return f"{name} is {share!r}, which is no share between 0 and 1"
    for name in ("seconds", "shared_seconds", "memory_mb"):
        value = getattr(result, name)
        if value is not None and not (is_finite(value) and value >= 0):
            return f"{name} is {value!r}, which is no finite number of at least 0"
    for name in ("student_parameters", "teacher_parameters"):
        if getattr(result, name) is not None and getattr(result, name) < 1:
            return f"{name} is {getattr(result, name)}, and a network has at least 1"
    return None


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
    return {str(name): value for name, value in values.items()} if isinstance(values, dict) else {}


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        records = read_metrics(path)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{METRICS} cannot be read: {error}") from None
    for number, record in enumerate(records, 1):
        if wrong := _no_record(record):
            raise ValueError(f"{METRICS} is damaged: line {number} is no record of metrics: {wrong}")
    return records


def _no_record(record: Any) -> str | None:
    """What keeps a line from being a record that can be drawn, None where nothing does. A loss may be NaN: it is left out."""
    if not isinstance(record, dict) or not {"split", "step", "epoch"} <= record.keys():
        return "it has no split, step and epoch"
    for name, value in record.items():
        if name != "split" and (isinstance(value, bool) or not isinstance(value, int | float | None)):
            return f"{name} is {str(value)[:40]!r}, which is no number"
    for name in ("step", "epoch", *(["stage"] if "stage" in record else [])):
        if record[name] is None or not is_finite(record[name]):
            return f"{name} is {record[name]!r}, which is no finite number"
    if record["split"] == "validation":
        accuracy = record.get("accuracy")
        if accuracy is None or not 0 <= accuracy <= 1:
            return f"accuracy is {accuracy!r}, which is no share between 0 and 1"
    return None

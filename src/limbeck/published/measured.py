"""Finished runs and evaluations, and which published cells they are of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from limbeck.config import defaults_of_runs
from limbeck.data.sources import find_source
from limbeck.errors import LimbeckError
from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.objectives.expand import objective_identity
from limbeck.published.plans import Plan
from limbeck.published.probes import probes, run_of
from limbeck.report.read import Run, read_run
from limbeck.report.statistics import Stat
from limbeck.runs import CONFIG, EVALUATION, RESULT

_DEFAULTS = defaults_of_runs()
# Where, how and from what a run was started. Any other setting, one of a later limbeck too, must be the protocol's or the
# default.
_HARMLESS = {
    *(
        "seed",
        "order_seed",
        "name",
        "runs_dir",
        "resume",
        "overwrite",
        "data",
        "data_dir",
        "download",
        "workers",
        "plugins",
    ),
    *("log_steps", "checkpoint_epochs", "checkpoint_steps", "validate_epochs", "trackers", "skip_unreadable"),
    *("device", "compile", "channels_last", "gradient_checkpointing"),
    *("model", "student", "teacher", "objective", "student_classifier", "teacher_classifier", "allow_weak_teacher"),
    *("teacher_cache", "cache_dtype", "cache_features", "cache_check"),
}
_DEPTH = 5
_USUAL_RATE = {"sgd": 0.05, "adamw": 0.001}


@dataclass(frozen=True)
class Measured:
    """What runs measured for a cell, in the unit of its table.

    figure: of the test accuracy, over seeds, of the runs that were run at the cell's protocol; a seed that was run twice counts
    once, as its mean. None where there is none. teacher: of the accuracies of those runs' teachers. runs: their folders.
    other: those that differ from the protocol, and in what; they are not in the figure. on: of a probe, the images in words.
    """

    figure: Stat | None = None
    teacher: Stat | None = None
    runs: tuple[Path, ...] = ()
    other: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    on: str | None = None


@dataclass(frozen=True)
class Shelf:
    """The runs and evaluations of some folders.

    skipped: what could not be read, and why; unfinished: how many runs have no result yet.
    """

    runs: tuple[Run, ...] = ()
    evaluations: dict[Path, Evaluation] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    unfinished: int = 0

    def measured(self, plan: Plan, objective: str | None = None) -> Measured:
        """What the runs say of a cell with this plan, with its objective or another one."""
        wanted = objective or plan.objective
        if wanted is None:
            return Measured()
        same = [run for run in self.runs if _is_of(run, plan, wanted)]
        if plan.probe is not None:
            return self._probed(plan, wanted, same)
        differing = {run.path: differences(run, plan.settings) for run in same}
        at_protocol = [run for run in same if not differing[run.path]]
        return Measured(
            _over_seeds(at_protocol, "test"),
            _over_seeds(at_protocol, "teacher_test"),
            tuple(run.path for run in at_protocol),
            {path: found for path, found in differing.items() if found},
        )

    def _probed(self, plan: Plan, objective: str, same: Sequence[Run]) -> Measured:
        """What evaluations say of a probe of features; ``same`` are the runs that could have been probed."""
        figures: dict[int, list[float | None]] = {}
        runs: dict[Path, Run] = {}
        other: dict[Path, tuple[str, ...]] = {}
        images: set[int] = set()
        for probe in probes(self.evaluations, plan):
            run = run_of(probe, same)
            if run is None:
                if probe.is_student and _identity(probe.objective) == _identity(objective):
                    other[probe.path] = ("its run is not in these folders, so its protocol is not known",)
                continue
            differing = (*differences(run, plan.settings), *probe.differences)
            if differing or probe.accuracy is None or run.result is None:
                other[run.path] = differing
                continue
            runs[run.path] = run
            images.add(probe.images)
            figures.setdefault(run.result.seed, []).append(100 * probe.accuracy)
        means = [Stat.of(several) for several in figures.values()]
        return Measured(
            Stat.of(mean.mean for mean in means if mean is not None),
            _over_seeds(list(runs.values()), "teacher_test"),
            tuple(runs),
            other,
            f"{' or '.join(f'{count:,}' for count in sorted(images))} test images of {plan.probe}" if images else None,
        )


def read_shelf(folders: Iterable[Path]) -> Shelf:
    """Every run and evaluation in the folders and up to five levels below. A damaged one is skipped, and named."""
    folders = list(folders)
    found, skipped, unfinished = [], {}, 0
    evaluations = {}
    for path in dict.fromkeys(path for folder in folders for path in sorted(_files(folder, EVALUATION))):
        try:
            evaluations[path] = read_evaluation(path)
        except ValueError as error:
            skipped[path] = str(error)
    for path in dict.fromkeys(path for folder in folders for path in _folders_in(folder)):
        run = read_run(path)
        if run.problem is not None:
            skipped[path] = run.problem
        elif run.result is None:
            unfinished += 1
        else:
            found.append(run)
    return Shelf(tuple(found), evaluations, skipped, unfinished)


def differences(run: Run, protocol: dict[str, Any]) -> tuple[str, ...]:
    """In what a run differs from a protocol, as in "epochs 30, not 240"; empty where it is at the protocol."""
    assert run.result is not None
    if not run.settings:
        return ("its settings are missing",)
    wanted = {name: value for name, value in _DEFAULTS.items() if name not in _HARMLESS} | protocol
    given = {name: _normal(name, run.settings.get(name, _DEFAULTS[name]), run) for name in wanted}
    found = [f"{name} {given[name]}, not {wanted[name]}" for name in wanted if given[name] != wanted[name]]
    if run.result.processes != 1:
        found.append(f"{run.result.processes} processes, not 1")
    if "@" in str(run.settings.get("student") or run.settings.get("model") or ""):
        found.append("the student starts from weights")
    if _figure(run, "test") is None:
        found.append("no test accuracy")
    return tuple(found)


def _normal(name: str, value: Any, run: Run) -> Any:
    """A setting as it was used: what is left open is filled in."""
    assert run.result is not None
    epochs = run.result.epochs
    if name == "epochs":
        return epochs
    if name == "milestones" and isinstance(value, list):
        return [round(m * epochs) if isinstance(m, float) and m < 1 else m for m in value]
    if name == "lr" and value is None:
        return _USUAL_RATE.get(run.settings.get("optimizer", _DEFAULTS["optimizer"]))
    if name == "augment":
        usual = find_source(run.result.data)[0].recipe.augment if value == "auto" else value
        return " | ".join(part.replace(" ", "") for part in str(usual).split("|"))
    return value


def _is_of(run: Run, plan: Plan, objective: str) -> bool:
    result = run.result
    assert result is not None
    names = (result.data, result.teacher, _student_of(run))
    return names == (plan.data, plan.teacher, plan.student) and _identity(result.objective) == _identity(objective)


def _student_of(run: Run) -> str:
    """The network that was trained; a result names the one that was released, which SimKD gives another classifier."""
    assert run.result is not None
    text = run.settings.get("student") or run.settings.get("model") or run.result.student
    return str(text).partition("@")[0].removeprefix("zoo:")


@cache
def _identity(text: str) -> tuple[tuple[str, str], ...] | None:
    try:
        return objective_identity(text)
    except LimbeckError:
        return None  # of a plugin that is not here


def _over_seeds(runs: Sequence[Run], split: str) -> Stat | None:
    by_seed: dict[int, list[float | None]] = {}
    for run in runs:
        assert run.result is not None
        by_seed.setdefault(run.result.seed, []).append(_figure(run, split))
    means = [Stat.of(figures) for figures in by_seed.values()]
    return Stat.of(mean.mean for mean in means if mean is not None)


def _figure(run: Run, split: str) -> float | None:
    """Accuracy in percent."""
    figures: dict[str, float] = getattr(run.result, split) or {}
    return 100 * figures["accuracy"] if "accuracy" in figures else None


def _folders_in(folder: Path) -> list[Path]:
    """The run folders in a folder. A comparison's own is none: its runs lie below it."""
    found = sorted({file.parent for name in (CONFIG, RESULT) for file in _files(folder, name)})
    above = {path.parent for path in found}
    runs = [path for path in found if path not in above or (path / RESULT).exists()]
    return runs if found or folder.is_dir() else [folder]


def _files(folder: Path, name: str) -> Iterable[Path]:
    return (file for depth in range(_DEPTH + 1) for file in folder.glob(f"{'*/' * depth}{name}"))

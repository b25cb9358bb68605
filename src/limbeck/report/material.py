"""Everything that a report is made of, read from the folders it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limbeck.errors import SettingError
from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.report.identity import variants
from limbeck.report.looks import method_numbers
from limbeck.report.names import MethodKey, labels_of
from limbeck.report.read import Run, find_evaluations, find_runs, read_run
from limbeck.report.rows import MethodRow, method_key, summarise
from limbeck.report.statistics import Stat
from limbeck.runs import Result


@dataclass(frozen=True)
class Method:
    """A row of the table with its runs. progress: how far they are where they are unfinished, empty where they are not.

    short: the row's label for where there is no room for the progress.
    """

    row: MethodRow
    runs: Sequence[Run]
    short: str
    progress: str = ""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and where it was read."""

    path: Path
    evaluation: Evaluation


@dataclass(frozen=True)
class Material:
    """What was found.

    runs: all that were named, damaged ones too. rows: the table of the finished ones, teachers first. methods: those rows
    without the teachers, and then the methods that have unfinished runs, which are never mixed with finished ones.
    evaluations: those that could be read. skipped: what could not, with the reason.
    """

    runs: Sequence[Run]
    rows: Sequence[MethodRow]
    methods: Sequence[Method]
    evaluations: Sequence[Evaluated]
    skipped: Sequence[tuple[Path, str]]

    @property
    def records(self) -> list[Evaluation]:
        """The evaluations without the places where they were read."""
        return [evaluated.evaluation for evaluated in self.evaluations]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each method's colour, by its label."""
        return method_numbers((method.row.label for method in self.methods), self.records)

    @property
    def unfinished(self) -> list[Method]:
        """The methods of unfinished runs."""
        return [method for method in self.methods if method.progress]


def gather(paths: Sequence[Path], baseline: str | None = None) -> Material:
    """Read what the paths hold.

    Args:
        paths: run folders, folders of comparisons, folders that hold such folders, or evaluations' files.
        baseline: the label of the method that the others are set beside; the student alone where it is not given.

    Raises:
        SettingError: there is neither a run nor an evaluation that can be read, or no method has the baseline's label.
    """
    folders = find_runs(paths)
    runs = [read_run(folder) for folder in folders]
    evaluations, unread = _evaluations(find_evaluations(paths, folders))
    skipped = [(run.path, run.problem) for run in runs if run.problem is not None] + unread
    if not evaluations and all(run.problem is not None for run in runs):
        reasons = "; ".join(f"{path}: {problem}" for path, problem in skipped[:5]) or "no folder was named"
        raise SettingError(f"runs: there is no run to report on ({reasons}).")
    finished = _by_method([run for run in runs if run.result is not None])
    going = _by_method([run for run in runs if run.is_unfinished and run.metrics and run.about is not None])
    rows = summarise(
        [_result(run) for members in finished.values() for run in members],
        [key[-1] for key, members in finished.items() for _ in members],
        baseline,
    )
    methods = [Method(row, finished[row.key], row.label) for row in rows if not row.is_teacher]
    return Material(runs, rows, [*methods, *_unfinished(going, finished, rows)], evaluations, skipped)


def _evaluations(paths: Iterable[Path]) -> tuple[list[Evaluated], list[tuple[Path, str]]]:
    found, unread = [], []
    for path in paths:
        try:
            found.append(Evaluated(path, read_evaluation(path)))
        except ValueError as error:
            unread.append((path, str(error)))
    return found, unread


def _by_method(runs: list[Run]) -> dict[MethodKey, list[Run]]:
    members: dict[MethodKey, list[Run]] = {}
    for run, text in zip(runs, variants([_result(run) for run in runs], [run.settings for run in runs]), strict=True):
        members.setdefault(method_key(_result(run), text), []).append(run)
    return members


def _result(run: Run) -> Result:
    assert run.about is not None
    return run.about


def _unfinished(
    going: dict[MethodKey, list[Run]], finished: dict[MethodKey, list[Run]], rows: Sequence[MethodRow]
) -> list[Method]:
    known = {row.key: row.label for row in rows if not row.is_teacher}
    groups = {key: [_result(run) for run in runs] for key, runs in (finished | going).items()}
    labels = labels_of(groups) | known
    methods = [_going_on(labels[key], key, runs) for key, runs in going.items()]
    return sorted(methods, key=lambda method: (method.row.teacher is not None, -_so_far(method.row)))


def _so_far(row: MethodRow) -> float:
    return round(row.validation_best.mean, 9) if row.validation_best is not None else -1.0


def _going_on(label: str, key: MethodKey, runs: Sequence[Run]) -> Method:
    data, student, teacher, objective, epochs, variant = key
    progress = _progress(runs)
    row = MethodRow(
        label=f"{label} (unfinished: {progress})",
        objective=objective,
        data=data,
        student=student,
        teacher=teacher,
        variant=variant,
        epochs=epochs,
        seeds=tuple(sorted({_result(run).seed for run in runs})),
        parameters=0,
        parameters_ratio=None,
        validation_best=Stat.of([max(run.validated) for run in runs if run.validated]),
        validation_last=None,
        test=None,
        agreement=None,
        kept=None,
        seconds=None,
    )
    return Method(row, runs, f"{label} (unfinished)", progress)


def _progress(runs: Sequence[Run]) -> str:
    come = [round(run.metrics[-1]["epoch"], 1) for run in runs]
    ends = dict.fromkeys(f"{epoch:g}" for epoch in (min(come), max(come)))
    total = max(_result(run).epochs for run in runs)
    return f"epoch {' to '.join(ends)}" + (f" of {total}" if total else "")

"""The main job on the data that is always there: one command, a table with error bars, a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from limbeck.comparison import Comparison, run_comparison
from limbeck.config import CompareSettings, DemoSettings, TrainSettings
from limbeck.contest import contest_of
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.job import job_of
from limbeck.objectives.expand import expand_objectives
from limbeck.report.rows import MethodRow
from limbeck.runs import EVALUATION, STUDENT

if TYPE_CHECKING:
    from limbeck.evaluate.record import Evaluation

REPORT = "report.html"


@dataclass(frozen=True)
class DemoResult:
    """The table's rows, the page, and the folder that holds the runs."""

    rows: list[MethodRow]
    report: Path
    folder: Path


def run_demo(settings: DemoSettings, say: Callable[[str], None], callbacks: Sequence[Callback] = ()) -> DemoResult:
    """Train a teacher on scikit-learn's digits, then compare the student alone and with each objective over ``seeds``, and
    evaluate those of the first seed.

    Every student of a seed starts from the same weights and sees the same batches; seeds differ in both. The runs are small,
    so one thread is used: more would only wait for each other.

    Args:
        say: gets a line for each thing a user wants to know.
        callbacks: join both trainings, for progress.

    Raises:
        SettingError: a network or objective does not exist.
    """
    folder = _free_folder(settings.runs_dir)
    # A cosine, since these runs are far shorter than the benchmark's 240 epochs, for which the default steps are made.
    common = {"runs_dir": folder, "epochs": settings.epochs, "data": "digits", "schedule": "cosine", "select": "last"}
    # Twice as fast for the teacher's convolutions on a CPU.
    common |= {"checkpoint_epochs": settings.epochs, "channels_last": True}
    contest = CompareSettings.make(
        {
            **common,
            "teacher": f"{settings.teacher}@{folder / 'teacher' / STUDENT}",
            "student": settings.student,
            "objectives": settings.objectives,
            "seeds": settings.seeds,
            "independent_order": True,
            "name": "students",
        }
    )
    expand_objectives(settings.objectives)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        teacher = TrainSettings.make({**common, "model": settings.teacher, "name": "teacher"})
        taught = run(job_of(teacher), callbacks=callbacks, say=say).result.test
        assert taught is not None
        say(f"the teacher is right on {taught['accuracy']:.2%} of the test digits")
        done = run_comparison(contest_of(contest), page=False, callbacks=callbacks, say=say)
        assert done.folder is not None
        say("what the students of the first seed kept is measured")
        _evaluate(done, folder / "teacher").write(done.folder / EVALUATION)
    finally:
        torch.set_num_threads(threads)
    from limbeck.report.page import write_report  # which imports matplotlib

    rows = write_report([done.folder], folder / REPORT, title="limbeck demo: distilling handwritten digits")
    return DemoResult(rows, folder / REPORT, folder)


def _evaluate(done: Comparison, teacher: Path) -> Evaluation:
    """Every figure of the students of the first seed that can be told without other data."""
    from limbeck.evaluate.bench import Options
    from limbeck.evaluate.parts import NAMED_ALONE, NAMES
    from limbeck.evaluate.suite import evaluate_networks
    from limbeck.report.names import method_label

    assert done.folder is not None
    first = min(result.seed for result in done.results.values())
    chosen = {name: result for name, result in done.results.items() if result.seed == first}
    return evaluate_networks(
        {name: str(done.folder / name) for name in chosen},
        "digits",
        teacher=str(teacher),
        methods={name: method_label(result) for name, result in chosen.items()},
        options=Options(tuple(name for name in NAMES if name not in NAMED_ALONE), robustness_limit=60, map_limit=200),
    )


def _free_folder(runs_dir: Path) -> Path:
    names = (runs_dir / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(path for path in names if not path.exists())

"""The main job on the data that is always there: one command, a table with error bars, a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from limbeck.config import DemoSettings, DistillSettings, TrainSettings
from limbeck.data import ImageData, load_data
from limbeck.distillation import run
from limbeck.job import Distilled, Job, job_of
from limbeck.objectives import parse_objective
from limbeck.report.page import write_report
from limbeck.report.table import MethodRow
from limbeck.runs import STUDENT, run_name

REPORT = "report.html"


@dataclass(frozen=True)
class DemoResult:
    """The table's rows, the page, and the folder that holds the runs."""

    rows: list[MethodRow]
    report: Path
    folder: Path


def run_demo(settings: DemoSettings, say: Callable[[str], None]) -> DemoResult:
    """Train a teacher on scikit-learn's digits, then the student alone and with each objective, ``seeds`` times each.

    Every student of a seed starts from the same weights and sees the same batches; seeds differ in both. The runs are small,
    so each uses one thread: more would only wait for each other.

    Args:
        say: gets a line for each run.

    Raises:
        SettingError: a network or objective does not exist.
    """
    for objective in settings.objectives:
        parse_objective(objective)
    folder = _free_folder(settings.runs_dir)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = list(_runs(settings, load_data("digits"), folder, say))
    finally:
        torch.set_num_threads(threads)
    report = folder / REPORT
    # The teacher's own run would stand twice in the table: its figures are in every student's result.
    rows = write_report(runs[1:], report, title="limbeck demo: distilling handwritten digits")
    return DemoResult(rows, report, folder)


def _runs(settings: DemoSettings, data: ImageData, folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    # A cosine, since these runs are far shorter than the benchmark's 240 epochs, for which the default steps are made.
    common = {"runs_dir": folder, "epochs": settings.epochs, "data": "digits", "schedule": "cosine", "select": "last"}
    # Twice as fast for the teacher's convolutions on a CPU.
    common |= {"checkpoint_epochs": settings.epochs, "channels_last": True}
    teacher = TrainSettings.make({**common, "model": settings.teacher, "name": "teacher"})
    yield _path(_do(job_of(teacher), data, "teacher", say))
    weights = f"{settings.teacher}@{folder / 'teacher' / STUDENT}"
    for seed in range(settings.seeds):
        own = {**common, "seed": seed}
        alone = TrainSettings.make({**own, "model": settings.student, "name": run_name("alone", seed)})
        yield _path(_do(job_of(alone), data, f"student alone, seed {seed}", say))
        for objective in settings.objectives:
            names = {"teacher": weights, "student": settings.student, "objective": objective}
            taught = DistillSettings.make({**own, **names, "name": run_name(objective, seed)})
            yield _path(_do(job_of(taught), data, f"{objective}, seed {seed}", say))


def _do(job: Job, data: ImageData, label: str, say: Callable[[str], None]) -> Distilled:
    done = run(Job(job.student, job.teacher, job.objective, job.settings, data), say=lambda line: None)
    test = done.result.test
    assert test is not None
    say(f"{label:<24} {test['accuracy']:7.2%} of test digits   {done.result.seconds:5.1f} s")
    return done


def _path(done: Distilled) -> Path:
    assert done.folder is not None
    return done.folder


def _free_folder(runs_dir: Path) -> Path:
    names = (runs_dir / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(path for path in names if not path.exists())

"""The main job on the data that is always there: one command, a table with error bars, a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True)
class _Demo:
    """What a demo is about.

    common: settings of teacher and students. of_teacher, of_students: what is theirs alone. teaches: the teacher in a line, of
    its figures on the test split. evaluated: whether what the students kept is measured too. of_start: how the student learns
    from labels first, whose weights all students then start from; None for random ones.
    """

    title: str
    common: Mapping[str, Any]
    of_teacher: Mapping[str, Any]
    of_students: Mapping[str, Any]
    teaches: Callable[[Mapping[str, float]], str]
    evaluated: bool
    of_start: Mapping[str, Any] | None = None


_DEMOS = {
    "images": _Demo(
        title="limbeck demo: distilling handwritten digits",
        # A cosine, since these runs are far shorter than the benchmark's 240 epochs, for which the default steps are made;
        # channels last is twice as fast for the teacher's convolutions on a CPU.
        common={"data": "digits", "epochs": 30, "channels_last": True},
        of_teacher={"model": "convnet_base"},
        of_students={"student": "convnet_tiny", "objectives": ["kd", "icd", "icd+kd"]},
        teaches=lambda test: f"the teacher is right on {test['accuracy']:.2%} of the test digits",
        evaluated=True,
    ),
    "text": _Demo(
        title="limbeck demo: distilling a language model that adds",
        common={
            "data": "arithmetic(digits=2, operations='+', train=2000, val=100, test=300, backwards=True)",
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "warmup_epochs": 1.0,
            "max_length": 12,
            "max_new_tokens": 6,
            "answers": 300,
            "batch_size": 32,
        },
        of_teacher={"model": "llama(layers=2, width=128, heads=4)", "epochs": 22, "lr": 0.001},
        of_students={
            "student": "llama(layers=2, width=64, heads=4)",
            # Writing takes its time.
            "seeds": 1,
            "epochs": 8,
            "lr": 0.001,
            "objectives": [],
            "baselines": False,
            "members": [
                {"objective": "alone"},
                {"objective": "kl"},
                {"objective": "kl", "policy": "student"},
                {"objective": "kl", "policy": "speculative(top_k=3)"},
            ],
        },
        # A student that cannot yet write a sum would show nothing of whose text is the better one.
        of_start={"epochs": 8, "lr": 0.002, "schedule": "constant"},
        teaches=lambda test: f"the teacher adds {test['exact_match']:.2%} of the test sums right",
        evaluated=False,
    ),
    "search": _Demo(
        title="limbeck demo: distilling an encoder that finds documents",
        common={
            "data": "search:synonyms(train=1600, val=100, test=300)",
            "epochs": 8,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "warmup_epochs": 0.5,
            "max_length": 16,
            "batch_size": 64,
        },
        of_teacher={"model": "bert(layers=1, width=128, heads=4, dropout=0)", "lr": 0.002},
        of_students={
            "student": "bert(layers=1, width=64, heads=2, dropout=0)",
            # Fewer than the teacher had: what it knows of the other pairs is in its embeddings alone.
            "train_limit": 500,
            "epochs": 16,
            "lr": 0.003,
            "objectives": [],
            "baselines": False,
            "members": [
                {"objective": "alone"},
                {"objective": "contrastive + listwise_kl"},
                {"objective": "contrastive + embed_match"},
                {"objective": "embed_distill"},
            ],
        },
        teaches=lambda test: f"the teacher's nDCG@10 is {test['ndcg_10']:.2%} on the test queries",
        evaluated=False,
    ),
}


def run_demo(settings: DemoSettings, say: Callable[[str], None], callbacks: Sequence[Callback] = ()) -> DemoResult:
    """Train a teacher, compare the student alone and with each method over ``seeds``, and evaluate those of the first seed.

    The images are scikit-learn's digits, the text sums of two numbers, the collection generated synonyms. Every student of a
    seed starts from the same weights and sees the same batches; seeds differ in both. The runs are small, so one thread is
    used: more would only wait for each other.

    Args:
        say: gets a line for each thing a user wants to know.
        callbacks: join both trainings, for progress.

    Raises:
        SettingError: a network or objective does not exist.
    """
    demo, folder = _DEMOS[settings.about], _free_folder(settings.runs_dir)
    asked = settings.model_dump(include={"epochs", "student", "objectives"}, exclude_none=True)
    if settings.objectives:
        expand_objectives(settings.objectives)
        asked |= {"members": [], "baselines": True}
    else:
        asked.pop("objectives")
    common = {"runs_dir": folder, "schedule": "cosine", "select": "last", **demo.common}
    shorter = {} if settings.epochs is None else {"epochs": settings.epochs}
    taught = {**common, **demo.of_teacher, **shorter, "name": "teacher"}
    if settings.teacher is not None:
        taught["model"] = settings.teacher
    taught["checkpoint_epochs"] = taught["epochs"]
    learning = {**common, **demo.of_students, **asked, "name": "students"}
    started = None
    if demo.of_start is not None:
        started = {**common, **demo.of_start, **shorter, "model": learning["student"], "name": "start"}
        learning["student"] = f"{learning['student']}@{folder / 'start' / STUDENT}"
    learning |= {
        "teacher": f"{taught['model']}@{folder / 'teacher' / STUDENT}",
        "seeds": settings.seeds or demo.of_students.get("seeds", 3),
    }
    learning |= {"independent_order": True, "checkpoint_epochs": learning["epochs"]}
    contest = contest_of(CompareSettings.make(learning))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = run(job_of(TrainSettings.make(taught)), callbacks=callbacks, say=say).result.test
        assert found is not None
        say(demo.teaches(found))
        if started is not None:
            say("what the students start from is trained on labels")
            run(job_of(TrainSettings.make(started)), callbacks=callbacks, say=say)
        done = run_comparison(contest, page=False, callbacks=callbacks, say=say)
        assert done.folder is not None
        if demo.evaluated:
            say("what the students of the first seed kept is measured")
            _evaluate(done, folder / "teacher").write(done.folder / EVALUATION)
    finally:
        torch.set_num_threads(threads)
    from limbeck.report.page import write_report  # which imports matplotlib

    rows = write_report([done.folder], folder / REPORT, title=demo.title)
    return DemoResult(rows, folder / REPORT, folder)


def _evaluate(done: Comparison, teacher: Path) -> Evaluation:
    """Every figure of the students of the first seed that can be told without other data."""
    from limbeck.evaluate.bench import Options
    from limbeck.evaluate.parts import usual_parts
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
        options=Options(tuple(usual_parts("images", teacher=True)), robustness_limit=60, map_limit=200),
    )


def _free_folder(runs_dir: Path) -> Path:
    names = (runs_dir / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(path for path in names if not path.exists())

"""Many students in one pass: each learns what it learns alone, fails alone, and is not trained twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import limbeck
from limbeck import comparison
from limbeck.comparison import Comparison, run_comparison
from limbeck.config import CompareSettings, DistillSettings, TrainSettings
from limbeck.contest import contest_of, entries_of
from limbeck.data import load_data
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.errors import LimbeckError, RunFolderError, SettingError, SignalError
from limbeck.job import job_of
from limbeck.objectives import CE, KD
from limbeck.runs import read_metrics

# Three stages, as methods that match them ask for; narrow, since what it knows plays no part here.
TEACHER = "convnet(widths=[8, 12, 16])"
DROPOUT = "tests.engine.networks:with_batch_norm"

COMMON: dict[str, Any] = {
    "teacher": TEACHER,
    "student": ["convnet_tiny"],
    "objectives": ["icd"],
    "seeds": 1,
    "allow_weak_teacher": True,
    "train_limit": 160,
    "test_limit": 60,
    "epochs": 2,
    "batch_size": 32,
    "augment": "crop=1,cutout=2",
}


def settings(folder: Path, **changes: Any) -> CompareSettings:
    return CompareSettings.make({**COMMON, "runs_dir": folder, "name": "all", **changes})


def compare(folder: Path, callbacks: list[Callback] | None = None, page: bool = False, **changes: Any) -> Comparison:
    return run_comparison(contest_of(settings(folder, **changes)), page=page, callbacks=callbacks or [])


def read_settings(folder: Path) -> DistillSettings | TrainSettings:
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    kind = TrainSettings if "\nmodel:" in text else DistillSettings
    return kind.read(folder / "config.yaml")


def same(one: Path, two: Path) -> bool:
    ours, theirs = (load_file(folder / "student.safetensors") for folder in (one, two))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- each as alone -----------------------------------------------------------------------------------------------------


FEW: list[dict[str, Any]] = [
    {"objective": "icd+kd", "student": DROPOUT},
    {"objective": "ce + crd(negatives=20)", "ema": 0.9, "optimizer": "adamw", "schedule": "cosine"},
    {"objective": "ce + ab(init_epochs=1)"},
]
MANY: list[dict[str, Any]] = [
    *FEW,
    {"objective": "ce + 100*at()", "clip_norm": 0.5, "lr": 0.01, "warmup_epochs": 0.5},
    {"objective": "ce + 0.1*fitnet()", "student": "convnet(widths=[6, 12, 20])"},
    {"objective": "simkd()"},
    {"objective": "alone", "weight_decay": 0.0},
    {"objective": "mlkd", "stages": [{"objective": "kd", "epochs": 1}]},
    {"objective": "0.5*kd() + dml(peers='same, convnet(widths=[4, 8])')", "clip_norm": 0.5},
    {"objective": "one(warmup_epochs=2)", "ema": 0.9},
]


@pytest.mark.parametrize("members", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_a_member_is_the_same_run_made_alone(tmp_path: Path, members: list[dict[str, Any]]) -> None:
    """Bit for bit: different students, dropout's random numbers, memories, stages of their own, moving averages."""
    done = compare(tmp_path, members=members, objectives=["dkd"], baselines=False, log_steps=2)
    assert len(done.results) == 1 + len(members)
    for name in done.results:
        alone = run(job_of(read_settings(tmp_path / "all" / name).model_copy(update={"runs_dir": tmp_path / "alone"})))
        assert alone.folder is not None
        assert same(tmp_path / "all" / name, alone.folder), name
        ours, theirs = done.results[name], alone.result
        assert (ours.test, ours.validation_best, ours.teacher_test) == (
            theirs.test,
            theirs.validation_best,
            theirs.teacher_test,
        )
        times = {"seconds", "images_per_second"}
        records = [
            [{key: value for key, value in record.items() if key not in times} for record in read_metrics(folder)]
            for folder in (tmp_path / "all" / name, alone.folder)
        ]
        assert records[0] == records[1], name


class CountTeacher(nn.Module):
    """A teacher that counts its batches by their size, those of its copies too."""

    batches: Counter[int] = Counter()

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network

    def forward(self, images: Tensor) -> Tensor:
        self.batches[len(images)] += 1
        logits: Tensor = self.network(images)
        return logits


def test_the_teacher_sees_a_batch_once_however_many_learn_from_it(tmp_path: Path) -> None:
    data = load_data("digits", train_limit=160, test_limit=60)
    counts = []
    for objectives in (["kd"], ["kd", "dkd", "dist", "0.5*ce + kd"]):
        CountTeacher.batches.clear()
        limbeck.compare(
            CountTeacher(),
            "convnet_tiny",
            data,
            objectives,
            seeds=2,
            epochs=3,
            batch_size=31,
            allow_weak_teacher=True,
            baselines=False,
        )
        counts.append(CountTeacher.batches[31])
    # Five batches of 31 in each of three epochs; a probe, nine batches of the validation split and one of the test split.
    assert counts == [26, 26]


def test_same_batches_for_all_or_an_order_for_each_seed(tmp_path: Path) -> None:
    together = compare(tmp_path, seeds=2, objectives=["kd"], baselines=False)
    apart = compare(tmp_path, seeds=2, objectives=["kd"], baselines=False, independent_order=True, name="apart")
    assert json.loads((tmp_path / "all" / "groups.json").read_text()) == [["kd-seed0", "kd-seed1"]]
    assert json.loads((tmp_path / "apart" / "groups.json").read_text()) == [["kd-seed0"], ["kd-seed1"]]
    first, second = (tmp_path / "all" / name for name in ("kd-seed0", "kd-seed1"))
    assert not same(first, second)
    assert same(first, tmp_path / "apart" / "kd-seed0")
    assert not same(second, tmp_path / "apart" / "kd-seed1")
    assert read_settings(second).order_seed == 0
    assert read_settings(tmp_path / "apart" / "kd-seed1").order_seed is None
    assert together.results.keys() == apart.results.keys()


@pytest.mark.slow
def test_in_smaller_groups_the_same_students(tmp_path: Path) -> None:
    said: list[str] = []
    compare(tmp_path, objectives=["dkd"])
    run_comparison(contest_of(settings(tmp_path, objectives=["dkd"], group_size=2, name="small")), say=said.append)
    assert json.loads((tmp_path / "small" / "groups.json").read_text()) == [["alone-seed0", "kd-seed0"], ["dkd-seed0"]]
    assert any("3 in 2 passes" in line for line in said)
    for name in ("alone-seed0", "kd-seed0", "dkd-seed0"):
        assert same(tmp_path / "all" / name, tmp_path / "small" / name)


def test_groups_are_made_from_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    contest = contest_of(settings(tmp_path, objectives=["kd", "dkd"], baselines=False))
    run_comparison(contest, folder=False, say=said.append)
    (line,) = (line for line in said if line.startswith("students"))
    most = float(line.split("at most ")[1].split(" MiB")[0].replace(",", ""))
    monkeypatch.setattr(comparison, "free_memory", lambda device: 1)
    run_comparison(contest, folder=False, say=said.append)
    assert any("2 in 2 passes" in line for line in said)
    assert most >= 0


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_student_that_fails_fails_alone(tmp_path: Path) -> None:
    members = [{"objective": "1e20*kd", "lr": 1e10}]
    done = compare(tmp_path, objectives=["dkd"], members=members, baselines=False)
    (failed,) = done.failures
    assert "NaN or infinite" in done.failures[failed].reason
    assert list(done.results) == ["dkd-seed0"]
    told = json.loads((tmp_path / "all" / failed / "failure.json").read_text())
    assert told["step"] == done.failures[failed].step
    assert not (tmp_path / "all" / failed / "result.json").exists()
    assert list((tmp_path / "all" / failed).glob("nonfinite-step-*.pt"))
    compare(tmp_path, objectives=["dkd"], baselines=False, name="healthy")
    assert same(tmp_path / "all" / "dkd-seed0", tmp_path / "healthy" / "dkd-seed0")


class RunsOut(nn.Module):
    """A network that finds no memory once it has been trained on a few batches."""

    def __init__(self) -> None:
        super().__init__()
        self.network = limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += self.training
        if self.calls > 4:
            raise torch.OutOfMemoryError("tried to allocate 8 GiB")
        logits: Tensor = self.network(images)
        return logits


def test_one_without_memory_ends_alone(tmp_path: Path) -> None:
    data = load_data("digits", train_limit=160, test_limit=60)
    done = limbeck.compare(
        TEACHER,
        [RunsOut, "convnet_tiny"],
        data,
        ["kd"],
        seeds=1,
        epochs=2,
        batch_size=32,
        allow_weak_teacher=True,
        baselines=False,
    )
    assert list(done.failures) == ["RunsOut-kd-seed0"]
    assert "out of memory" in done.failures["RunsOut-kd-seed0"].reason
    assert list(done.students) == ["convnet_tiny-kd-seed0"]


def test_when_all_fail_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="NaN or infinite"):
        compare(tmp_path, objectives=["1e20*kd"], lr=1e10, baselines=False)


class GoodUntilTested(nn.Module):
    """A network whose logits are not finite for the test split alone, which has more images a batch than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.network = limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits * float("nan") if len(images) == 28 else logits


def test_one_that_fails_in_the_test_fails_alone(tmp_path: Path) -> None:
    # 60 test images in batches of 32 end in one of 28, as no other split does.
    done = limbeck.compare(
        TEACHER,
        [GoodUntilTested, "convnet_tiny"],
        load_data("digits", train_limit=160, test_limit=60),
        ["kd"],
        seeds=1,
        epochs=1,
        batch_size=32,
        allow_weak_teacher=True,
        baselines=False,
    )
    assert "NaN or infinite for 28 of 60" in done.failures["GoodUntilTested-kd-seed0"].reason
    assert list(done.results) == ["convnet_tiny-kd-seed0"]


@pytest.mark.parametrize(
    "changes",
    [{"allow_weak_teacher": False}, {"objectives": ["at"], "teacher_cache": Path("cache"), "baselines": False}],
    ids=["weak teacher", "cache"],
)
def test_a_comparison_that_cannot_begin_leaves_the_old_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    compare(tmp_path, objectives=["kd"], epochs=1)
    before = (tmp_path / "all" / "table.md").read_text()
    with pytest.raises(LimbeckError):
        compare(tmp_path, **{"objectives": ["kd"], "overwrite": True, **changes})
    assert (tmp_path / "all" / "table.md").read_text() == before
    with pytest.raises(LimbeckError):
        compare(tmp_path, **{"objectives": ["kd"], "name": "new", **changes})
    assert not (tmp_path / "new").exists()


# -- resume ------------------------------------------------------------------------------------------------------------


class StopAt(Callback):
    """Asks the run to stop as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("step", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_stopped_and_resumed_repeats_nothing(tmp_path: Path, step: int) -> None:
    changes: dict[str, Any] = {"objectives": ["icd+kd"], "log_steps": 2, "group_size": 2, "student": [DROPOUT]}
    compare(tmp_path / "whole", **changes)
    with pytest.raises(LimbeckError, match="--resume"):
        compare(tmp_path / "cut", callbacks=[StopAt(step)], **changes)
    finished = compare(tmp_path / "cut", resume=True, **changes)
    assert len(finished.results) == 3
    for name in finished.results:
        assert same(tmp_path / "whole" / "all" / name, tmp_path / "cut" / "all" / name), name
    untouched = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "all").glob("*/student.safetensors")}
    again = compare(tmp_path / "cut", resume=True, **changes)
    assert again.students == {}
    assert again.results.keys() == finished.results.keys()
    assert untouched == {path: path.stat().st_mtime_ns for path in untouched}
    assert not list((tmp_path / "cut" / "all" / "checkpoints").iterdir())


def test_a_resumed_comparison_has_the_same_students(tmp_path: Path) -> None:
    compare(tmp_path, objectives=["kd"])
    with pytest.raises(RunFolderError, match="other settings"):
        compare(tmp_path, objectives=["kd", "dkd"], resume=True)
    with pytest.raises(RunFolderError, match="--resume"):
        compare(tmp_path, objectives=["kd"])
    (tmp_path / "all" / "groups.json").write_text("[[")
    with pytest.raises(RunFolderError, match=r"groups\.json"):
        compare(tmp_path, objectives=["kd"], resume=True)


def test_students_that_teach_each_other_need_no_teacher(tmp_path: Path) -> None:
    changes = {"teacher": None, "objectives": ["dml"], "epochs": 1}
    done = compare(tmp_path, **changes)
    assert set(done.results) == {"alone-seed0", "dml-seed0"}
    assert [(row.label, row.baseline) for row in done.rows] == [("student alone", True), ("dml", False)]
    alone = run(job_of(read_settings(tmp_path / "all" / "dml-seed0").model_copy(update={"runs_dir": tmp_path / "one"})))
    assert alone.folder is not None
    assert same(tmp_path / "all" / "dml-seed0", alone.folder)
    for wrong, said in (
        ({"objectives": ["dml", "kd"]}, "teacher is not given.*'kd'"),
        ({"teacher_budget": 64}, "teacher_budget is of a teacher"),
    ):
        with pytest.raises(SettingError, match=said):
            compare(tmp_path, **{**changes, **wrong, "name": "other"})


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_the_folder_holds_students_tables_and_a_page(tmp_path: Path) -> None:
    done = compare(tmp_path, page=True, objectives=["icd(alpha=[0.1, 0.9])"], seeds=2)
    folder = tmp_path / "all"
    assert {path.name for path in folder.glob("table.*")} == {"table.md", "table.csv", "table.tex", "table.json"}
    assert (folder / "report.html").exists()
    labels = [row.label for row in done.rows if not row.is_teacher]
    assert sorted(labels) == ["icd(alpha=0.1)", "icd(alpha=0.9)", "kd", "student alone"]
    assert all(len(row.seeds) == 2 for row in done.rows if not row.is_teacher)
    result = next(iter(done.results.values()))
    assert result.shared_with == 8
    assert result.shared_seconds is not None
    assert result.memory_mb is not None
    assert 0 < result.seconds < result.shared_seconds + sum(each.seconds for each in done.results.values())


def test_students_of_different_kinds_have_rows_of_their_own(tmp_path: Path) -> None:
    done = compare(
        tmp_path,
        page=True,
        student=["convnet_tiny, convnet(widths=[6, 12])"],
        members=[{"objective": "kd", "lr": 0.01}],
    )
    assert {row.student for row in done.rows if not row.is_teacher} == {"convnet_tiny", "convnet(widths=[6, 12])"}
    labels = {row.label for row in done.rows}
    assert {"kd", "kd · lr=0.01"} <= labels
    without = compare(
        tmp_path / "without",
        student=["convnet_tiny, convnet(widths=[6, 12])"],
        members=[{"objective": "kd", "lr": 0.01}],
        epochs=1,
    )
    assert {row.label for row in without.rows} == labels


def test_members_alone_are_not_joined_by_what_is_compared_by_default() -> None:
    members = [{"objective": "kd", "lr": lr} for lr in (0.1, 0.2)]
    values = {"teacher": TEACHER, "student": "convnet_tiny", "members": members}
    alone = entries_of(contest_of(CompareSettings.make({**values, "baselines": False})))
    assert [entry.name for entry in alone] == ["kd-lr-0.1", "kd-lr-0.2"]
    named = entries_of(contest_of(CompareSettings.make({**values, "objectives": ["icd"]})))
    assert [entry.name for entry in named] == ["alone", "kd", "icd", "kd-lr-0.1", "kd-lr-0.2"]
    usual = contest_of(CompareSettings.make({name: value for name, value in values.items() if name != "members"}))
    assert usual.settings.objectives == ["icd", "icd+kd"]
    written = contest_of(CompareSettings.make(values)).settings.model_dump(mode="json")
    assert CompareSettings.make(written).objectives == []


def test_names_tell_what_sets_students_of_one_objective_apart() -> None:
    stages = [{"objective": "kd", "epochs": number} for number in range(1, 9)]
    members = [
        {"objective": "kl"},
        {"objective": "kl", "policy": "speculative(top_k=3)"},
        {"objective": "kl", "policy": "student", "lr": 0.1},
        {"objective": "kl", "stages": stages},
    ]
    settings = CompareSettings.make({"teacher": "t", "student": "s", "baselines": False, "members": members})
    assert [entry.name for entry in entries_of(contest_of(settings))] == [
        "kl",
        "kl-policy-speculative-top_k-3",
        "kl-lr-0.1-policy-student",
        "kl-2",
    ]


def test_from_python_with_objects(tmp_path: Path) -> None:
    data = load_data("digits", train_limit=160, test_limit=60)
    teacher = limbeck.create_model(TEACHER, num_classes=10, in_channels=1).network

    def small() -> nn.Module:
        return limbeck.create_model("convnet(widths=[4, 8])", num_classes=10, in_channels=1).network

    done = limbeck.compare(
        teacher,
        small,
        data,
        [CE() + KD(temperature=2), "kd"],
        seeds=2,
        epochs=1,
        batch_size=32,
        allow_weak_teacher=True,
    )
    assert done.folder is None
    assert len(done.students) == 6
    weights = [next(student.student.parameters()) for student in done.students.values()]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"objectives": ["kd, icdd"]}, "icd"),
        ({"student": []}, "student is not given"),
        ({"teacher": None}, "teacher is not given"),
        ({"objectives": ["fsp"], "student": ["convnet(widths=[6, 12])"]}, "fsp"),
        ({"student": ["convnet_tny"]}, "convnet_tiny"),
        ({"accumulation": 2, "objectives": ["icd"]}, "accumulation"),
        ({"objectives": [], "baselines": False}, "nothing to compare"),
    ],
)
def test_what_is_wrong_with_any_student_is_said_first(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises((SettingError, SignalError, LimbeckError), match=problem):
        compare(tmp_path, **changes)
    assert not (tmp_path / "all").exists()


def test_seeds_of_students_that_start_from_weights_have_an_order_of_their_own(tmp_path: Path) -> None:
    first = compare(tmp_path, seeds=1, objectives=["kd"], baselines=False)
    (name,) = first.results
    weights = tmp_path / "all" / name / "student.safetensors"
    spec = f"{read_settings(tmp_path / 'all' / name).student}@{weights}"
    again = compare(tmp_path, seeds=2, objectives=["kd"], baselines=False, student=spec, name="again")
    orders = [read_settings(tmp_path / "again" / name).order_seed for name in sorted(again.results)]
    assert orders == [None, None]
    assert not same(*(tmp_path / "again" / name for name in sorted(again.results)))

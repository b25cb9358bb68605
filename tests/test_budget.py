"""A teacher that may be asked so often and no more: its calls are counted for real, image by image."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import limbeck
from limbeck.budget import ANSWERS, Calls, without_samples
from limbeck.combination import Combination
from limbeck.config import CompareSettings
from limbeck.contest import contest_of, entries_of, jobs_of
from limbeck.data import ImageData, ImageSplit, Preprocess, load_data
from limbeck.engine.callbacks import Callback
from limbeck.errors import CacheError, SettingError, TeacherError
from limbeck.job import Distilled
from limbeck.report.table import markdown
from limbeck.signals import Batch
from limbeck.teachers.rules import Routed

BUDGET, BATCH = 64, 32
DIGITS = load_data("digits", train_limit=160, test_limit=60)


class CountTeacher(nn.Module):
    """A teacher that remembers every image that it and its copies are shown."""

    shown: Counter[bytes]
    fails_after: int | None = None

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = limbeck.create_model("convnet(widths=[8, 12])", num_classes=10, in_channels=1).network

    def forward(self, images: Tensor) -> Tensor:
        if CountTeacher.fails_after is not None and sum(real().values()) >= CountTeacher.fails_after:
            raise RuntimeError("the teacher is out of reach")
        CountTeacher.shown.update(image.numpy().tobytes() for image in images)
        logits: Tensor = self.network(images)
        return logits


class Stop(Callback):
    """Ends the run in its second epoch."""

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.epoch == 1:
            raise RuntimeError("stopped")


def of_images(images: Tensor, data: ImageData) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in Preprocess(data.mean, data.std, channels=1)(images))


def real() -> Counter[bytes]:
    """What was shown of the data: the noise that tells shapes is left out."""
    known = Counter[bytes]()
    for rows in (BATCH, 2 * BATCH):
        black = torch.zeros(rows, 1, 8, 8, dtype=torch.uint8)
        known |= of_images(without_samples(Batch(black, torch.zeros(rows))).inputs, DIGITS)
    return Counter({image: count for image, count in CountTeacher.shown.items() if image not in known})


@pytest.fixture(autouse=True)
def _nothing_shown() -> None:
    CountTeacher.shown, CountTeacher.fails_after = Counter(), None


@pytest.fixture
def data() -> ImageData:
    return DIGITS


def distil(data: ImageData, objective: str = "icd+kd", callback: Callback | None = None, **settings: Any) -> Distilled:
    torch.manual_seed(0)
    student = limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network
    defaults: dict[str, Any] = {
        "epochs": 2,
        "batch_size": BATCH,
        "allow_weak_teacher": True,
        "augment": "crop=1,flip",
        "teacher_budget": BUDGET,
        "log_steps": 1,
    }
    values = {**defaults, **settings}
    teacher = values.pop("teacher", None) or CountTeacher()
    return limbeck.distill(teacher, student, data, objective, callbacks=[callback] if callback else [], **values)


def weights(done: Distilled) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in done.student.parameters()])


def test_it_is_asked_once_about_each_of_so_many_images(data: ImageData, tmp_path: Path) -> None:
    done = distil(data, runs_dir=tmp_path, name="run")
    images = data.limited(BUDGET).train.images
    assert isinstance(images, Tensor)
    assert real() == of_images(images, data)
    result = done.result
    assert (result.teacher_calls, result.teacher_test, result.teacher_validation) == (BUDGET, None, None)
    assert result.test is not None
    assert "agreement" not in result.test
    assert json.loads((tmp_path / "run" / "result.json").read_text())["teacher_calls"] == BUDGET


def test_without_a_folder_nothing_is_left(data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert distil(data, "ce + 100*at()").result.teacher_calls == BUDGET
    assert sum(real().values()) == BUDGET
    assert list(tmp_path.iterdir()) == []


def test_the_images_are_those_of_a_train_limit(data: ImageData) -> None:
    chosen = load_data("digits", train_limit=BUDGET).train
    assert torch.equal(load_data("digits").limited(BUDGET).train.index, chosen.index)
    assert torch.bincount(chosen.labels).min() >= BUDGET // 10 - 1
    with pytest.raises(SettingError, match="at least 10, one image a class; got 9"):
        data.limited(9)


@pytest.mark.parametrize("objective", ["icd+kd", "ce + 100*at()", "ckd(n=3)"])
def test_of_every_image_unaugmented_it_is_the_live_teacher(data: ImageData, objective: str) -> None:
    small = data.limited(96)
    live = distil(small, objective, augment="none", teacher_budget=None)
    kept = distil(small, objective, augment="none", teacher_budget=1000)
    assert kept.result.teacher_calls == 96
    # In training the live teacher's batch norms are folded, which rounds otherwise.
    torch.testing.assert_close(weights(kept), weights(live), rtol=1e-3, atol=1e-5)
    assert kept.result.test is not None
    assert live.result.test is not None
    assert kept.result.test["nll"] == pytest.approx(live.result.test["nll"], rel=1e-4)


def test_each_of_several_views_gets_the_sample_s_answer(data: ImageData) -> None:
    distil(data, augment="crop=1 | crop=1,cutout=3")
    assert sum(real().values()) == BUDGET
    assert max(real().values()) == 1


def test_a_comparison_shares_the_calls(data: ImageData) -> None:
    done = limbeck.compare(
        CountTeacher(),
        "convnet_tiny",
        data,
        "ckd",
        seeds=2,
        epochs=1,
        batch_size=BATCH,
        allow_weak_teacher=True,
        independent_order=True,
        teacher_budget=BUDGET,
    )
    assert sum(real().values()) == BUDGET
    calls = {name: result.teacher_calls for name, result in done.results.items()}
    assert calls == {name: None if name.startswith("alone") else BUDGET for name in calls}
    assert len(calls) == 6
    assert "| calls |" in markdown(done.rows)


def test_the_student_alone_is_that_of_a_train_limit() -> None:
    settings = CompareSettings.make({"teacher": "convnet_tiny", "student": ["convnet_tiny"], "teacher_budget": BUDGET})
    contest = contest_of(settings)
    jobs = jobs_of(contest, entries_of(contest), None)
    assert jobs["alone-seed0"].settings.train_limit == BUDGET
    assert jobs["kd-seed0"].settings.train_limit is None


def test_a_resumed_run_spends_nothing_more(data: ImageData, tmp_path: Path) -> None:
    undisturbed = distil(data, runs_dir=tmp_path, name="whole")
    CountTeacher.shown = Counter()
    with pytest.raises(RuntimeError, match="stopped"):
        distil(data, callback=Stop(), runs_dir=tmp_path, name="run")
    done = distil(data, runs_dir=tmp_path, name="run", resume=True)
    assert sum(real().values()) == BUDGET
    assert done.result.teacher_calls == BUDGET
    assert torch.equal(weights(done), weights(undisturbed))


def test_one_that_was_stopped_while_asking_asks_for_the_rest(data: ImageData, tmp_path: Path) -> None:
    CountTeacher.fails_after = BATCH
    with pytest.raises(RuntimeError, match="out of reach"):
        distil(data, runs_dir=tmp_path, name="run")
    assert sum(real().values()) == BATCH
    CountTeacher.fails_after = None
    distil(data, runs_dir=tmp_path, name="run", resume=True)
    assert sum(real().values()) == BUDGET
    assert max(real().values()) == 1


def test_answers_that_are_gone_are_not_asked_for_again(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        distil(data, callback=Stop(), runs_dir=tmp_path, name="run")
    shutil.rmtree(tmp_path / "run" / ANSWERS)
    with pytest.raises(TeacherError, match="a second one"):
        distil(data, runs_dir=tmp_path, name="run", resume=True)
    assert sum(real().values()) == BUDGET


def test_a_weak_teacher_s_answers_are_kept_for_who_goes_on(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="guessing"):
        distil(data, runs_dir=tmp_path, name="run", allow_weak_teacher=False)
    distil(data, runs_dir=tmp_path, name="run", resume=True)
    assert sum(real().values()) == BUDGET


def test_answers_of_another_teacher_are_refused(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        distil(data, callback=Stop(), runs_dir=tmp_path, name="run")
    other = CountTeacher()
    nn.init.zeros_(next(other.parameters()))
    with pytest.raises(CacheError, match="The teacher"):
        distil(data, runs_dir=tmp_path, name="run", resume=True, teacher=other)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher_budget": 20}, "less than a batch of 32"),
        ({"teacher_budget": 8, "batch_size": 8}, "at least 10, one image a class"),
        ({"teacher_cache": "cache"}, "teacher_cache exclude each other"),
        ({"train_limit": 100}, "Leave train_limit out"),
        ({"augment": "flip | flip,mixup=0.2"}, "view 2 mixes"),
        ({"assistants": ["convnet_tiny"], "taught_by": "mean"}, "give taught_by=chain"),
        ({"teacher": Combination(Routed(), (CountTeacher(), CountTeacher()))}, "change from epoch to epoch"),
    ],
)
def test_what_a_budget_does_not_go_with(data: ImageData, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        distil(data, "kd", **changes)
    assert not real()


def test_a_loader_does_not_tell_its_samples() -> None:
    loader = DataLoader(TensorDataset(torch.rand(64, 1, 8, 8), torch.arange(64) % 10), batch_size=32)
    with pytest.raises(SettingError, match="teacher_budget: a loader"):
        limbeck.distill(CountTeacher(), CountTeacher(), loader, "kd", epochs=1, teacher_budget=64)


def test_what_is_wrong_with_the_student_costs_no_call(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(limbeck.LimbeckError, match="needs the student"):
        limbeck.distill(
            CountTeacher(),
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
            data,
            "ce + at()",
            teacher_budget=64,
            epochs=1,
        )
    assert not real()


def test_one_call_too_many_is_not_made() -> None:
    calls = Calls(10)
    calls.spend(8)
    with pytest.raises(TeacherError, match=r"asked 10 times .* was asked 8 times, and 3 more"):
        calls.spend(3)
    assert calls.made == 8
    calls.spend(2)


def test_an_image_twice_in_the_data_is_asked_about_twice_at_most(data: ImageData) -> None:
    split = data.limited(48).train
    assert isinstance(split.images, Tensor)
    twice = ImageSplit(*(torch.cat([part, part[:16]]) for part in (split.images, split.labels, split.index)))
    assert distil(replace(data, train=twice), "kd", teacher_budget=BUDGET).result.teacher_calls == BUDGET
    assert sum(real().values()) == BUDGET

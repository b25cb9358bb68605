"""What a run promises, seen from outside: real networks, real digits, a few steps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import limbeck
from limbeck.data import ImageData, load_data
from limbeck.engine.callbacks import Callback
from limbeck.errors import (
    LimbeckError,
    MissingExtraError,
    NonFiniteError,
    RunFolderError,
    SettingError,
    SignalError,
    TapError,
    TeacherError,
    WeightsError,
)
from limbeck.job import Distilled
from limbeck.runs import read_metrics
from tests.engine.networks import Small, diverging, small


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=100)


@pytest.fixture(scope="module")
def teacher(data: ImageData) -> torch.nn.Module:
    torch.manual_seed(0)
    return limbeck.train("convnet_tiny", load_data("digits"), epochs=6, select="last").student


def student(seed: int = 0, **options: Any) -> Small:
    torch.manual_seed(seed)
    return small(num_classes=10, in_channels=1, **options)


def distil(teacher: torch.nn.Module, data: Any, objective: str = "kd", **settings: Any) -> Distilled:
    learner = settings.pop("student", None) or student()
    return limbeck.distill(teacher, learner, data, objective, **{"epochs": 1, "batch_size": 32, **settings})


def weights(done: Distilled) -> dict[str, torch.Tensor]:
    return done.student.state_dict()


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_the_teacher_does_not_change(teacher: torch.nn.Module, data: ImageData) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distil(teacher, data, "icd+kd")
    assert same(before, teacher.state_dict())


def test_the_same_seed_gives_the_same_student_and_another_seed_another(
    teacher: torch.nn.Module, data: ImageData
) -> None:
    one, two, other = (distil(teacher, data, seed=seed) for seed in (1, 1, 2))
    assert same(weights(one), weights(two))
    assert not same(weights(one), weights(other))


def test_micro_batches_train_the_same_student(teacher: torch.nn.Module, data: ImageData) -> None:
    whole, split = (distil(teacher, data, accumulation=n) for n in (1, 4))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(split)[name], value, rtol=1e-4, atol=1e-6)


def test_micro_batches_keep_the_views_of_a_sample_together(teacher: torch.nn.Module, data: ImageData) -> None:
    settings = {"augment": "none | crop=1,mixup=0.2", "objective": "ce(views='first') + kd()"}
    whole, split = (distil(teacher, data, accumulation=n, **settings) for n in (1, 4))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(split)[name], value, rtol=1e-4, atol=1e-6)


def test_mixtures_are_refused_where_their_labels_are_read(teacher: torch.nn.Module, data: ImageData) -> None:
    with pytest.raises(SignalError, match=r"ce\(\) reads the labels, and view 2 mixes .* with ce\(views='first'\)"):
        distil(teacher, data, augment="none | mixup=0.2")


def test_micro_batches_are_refused_where_the_loss_couples_the_batch(teacher: torch.nn.Module, data: ImageData) -> None:
    with pytest.raises(SettingError, match=r"accumulation is 2.*icd\(\).*compares the samples of a batch"):
        distil(teacher, data, "icd", accumulation=2)


@pytest.mark.parametrize(
    "setting",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"ema": 0.5},
        {"clip_norm": 5.0},
        {"optimizer": "adamw", "lr": 0.01},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_each_way_of_training_learns(teacher: torch.nn.Module, setting: dict[str, Any]) -> None:
    done = distil(teacher, load_data("digits"), "icd+kd", epochs=3, **setting)
    assert done.result.test is not None
    assert done.result.test["accuracy"] > 0.4


def test_clipping_bounds_the_step(teacher: torch.nn.Module, data: ImageData) -> None:
    start = {name: value.clone() for name, value in student().state_dict().items()}
    done = distil(teacher, data, clip_norm=1e-6, momentum=0.0, weight_decay=0.0, lr=1.0)
    moved = sum(float((weights(done)[name] - value).norm()) for name, value in start.items())
    assert 0 < moved < 1e-4


def test_a_callback_sees_metrics_and_can_stop(teacher: torch.nn.Module, data: ImageData) -> None:
    seen: list[tuple[str, int, dict[str, float]]] = []

    class Stopping(Callback):
        def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
            seen.append(("log", loop.position.step, metrics))

        def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
            seen.append(("epoch", loop.position.epoch, metrics))
            loop.stop = loop.position.epoch == 2

    distil(teacher, data, "icd+kd", epochs=5, log_steps=2, callbacks=[Stopping()])
    assert [place for kind, place, _ in seen if kind == "epoch"] == [1, 2]
    assert [place for kind, place, _ in seen if kind == "log"] == [2, 4, 5, 6, 8, 10]
    terms = {"loss", "ce", "kd", "icd.contrast", "icd.invariance", "icd.scale", "lr", "train_accuracy"}
    assert set(seen[0][2]) == terms
    assert set(seen[-1][2]) == {"accuracy", "nll"}


def test_select_best_keeps_the_best_validation_weights(teacher: torch.nn.Module, data: ImageData) -> None:
    # A learning rate that falls and then explodes makes the last epoch a bad one.
    settings: dict[str, Any] = {"epochs": 4, "lr": 0.02, "schedule": "multistep", "milestones": [3], "gamma": 1.0}
    best, last = (distil(teacher, data, select=which, **settings).result for which in ("best", "last"))
    assert best.validation_best == max(filter(None, (best.validation_best, best.validation_last)))
    assert best.validation_last == last.validation_last


def test_a_run_folder_holds_what_it_says(teacher: torch.nn.Module, data: ImageData, tmp_path: Path) -> None:
    done = distil(teacher, data, "icd+kd", name="one", runs_dir=tmp_path, student=student())
    assert done.folder == tmp_path / "one"
    names = {"config.yaml", "metrics.jsonl", "checkpoints", "student.safetensors", "README.md", "result.json"}
    assert {path.name for path in done.folder.iterdir()} == names
    result = json.loads((done.folder / "result.json").read_text())
    assert result["test"]["count"] == 100
    assert {"versions", "device", "seconds", "peak_memory_mb", "command", "seed"} <= result.keys()
    assert {record["split"] for record in read_metrics(done.folder)} == {"train", "validation"}
    with pytest.raises(RunFolderError, match="Use --resume to go on"):
        distil(teacher, data, "icd+kd", name="one", runs_dir=tmp_path)


def test_an_error_before_the_first_step_leaves_no_folder(
    teacher: torch.nn.Module, data: ImageData, tmp_path: Path
) -> None:
    with pytest.raises(SettingError):
        distil(teacher, data, batch_size=1000, name="one", runs_dir=tmp_path)
    assert not (tmp_path / "one").exists()


def test_a_loss_that_becomes_nan_names_the_step_and_saves_the_state(
    teacher: torch.nn.Module, data: ImageData, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteError, match=r"term '\w+' became NaN or infinite at step 1.*nonfinite-step-1\.pt"):
        distil(teacher, data, student=diverging(num_classes=10, in_channels=1), name="bad", runs_dir=tmp_path)
    saved = torch.load(tmp_path / "bad" / "nonfinite-step-1.pt", weights_only=True)
    assert len(saved["batch"]["labels"]) == 32
    assert "student.network.head.weight" in saved["model"]


def test_a_teacher_with_nan_weights_is_refused_before_training(data: ImageData) -> None:
    broken = student()
    with torch.no_grad():
        broken.head.bias[3] = torch.nan
    with pytest.raises(TeacherError, match="NaN or infinite for"):
        distil(broken, data)


def test_a_teacher_near_chance_is_refused_unless_allowed(data: ImageData) -> None:
    with pytest.raises(TeacherError, match=r"guessing gives 10\.00%"):
        distil(student(7), data)
    assert distil(student(7), data, allow_weak_teacher=True).result.teacher_validation is not None


def test_a_stage_trains_what_it_says(teacher: torch.nn.Module, data: ImageData) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    class Watch(Callback):
        def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
            kept.append({name: value.clone() for name, value in loop.trainable.student.network.state_dict().items()})

    learner = student()
    start = {name: value.clone() for name, value in learner.state_dict().items()}
    stages = [{"objective": "icd()", "epochs": 1, "trains": ["objective"]}]
    distil(teacher, data, stages=stages, student=learner, callbacks=[Watch()])
    assert same(start, kept[0])
    assert not same(start, kept[1])


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"objective": "icdd"}, SettingError, "did you mean 'icd'"),
        ({"objective": "kd(temp=3)"}, SettingError, "did you mean 'temperature'"),
        ({"student": "convnet_tine"}, SettingError, "did you mean 'convnet_tiny'"),
        ({"teacher": "convnet_tiny@nowhere.safetensors"}, WeightsError, "nowhere.safetensors"),
        ({"data": "digit"}, SettingError, "did you mean 'digits'"),
        ({"augment": "crpo=1"}, SettingError, "did you mean 'crop'"),
        ({"taps": {"stages.0": "stages.7"}, "student": "convnet_tiny"}, TapError, "no module 'stages.7'"),
        ({"student_classifier": "clasifier", "student": "convnet_tiny"}, TapError, "did you mean 'classifier'"),
        ({"device": "cuda"}, SettingError, "sees no CUDA device"),
        ({"precision": "fp16"}, SettingError, "a CPU"),
        ({"epoch": 3}, SettingError, "did you mean 'epochs'"),
        ({"gradient_checkpointing": True}, SettingError, "does not support it"),
        ({"plugins": ["nowhere.py"]}, SettingError, "there is no file nowhere.py"),
        ({"resume": True, "name": "nothing"}, RunFolderError, "no run to resume"),
        ({"batch_size": 500}, SettingError, "batch_size is 500"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_a_sentence(
    teacher: torch.nn.Module,
    data: ImageData,
    tmp_path: Path,
    change: dict[str, Any],
    kind: type[LimbeckError],
    sentence: str,
) -> None:
    if torch.cuda.is_available() and "CUDA" in sentence:
        pytest.skip("this machine has a CUDA device")
    values: dict[str, Any] = {"teacher": teacher, "data": data, "objective": "kd", "runs_dir": tmp_path, **change}
    settings = {k: v for k, v in values.items() if k not in ("teacher", "data", "objective")}
    with pytest.raises(kind, match=sentence):
        distil(values["teacher"], values["data"], values["objective"], **settings)


def test_teacher_and_student_may_not_be_the_same_module(teacher: torch.nn.Module, data: ImageData) -> None:
    with pytest.raises(SettingError, match="the same module"):
        distil(teacher, data, student=teacher)


def test_classes_that_differ_are_explained(data: ImageData) -> None:
    five = limbeck.create_model("convnet_tiny", num_classes=5, in_channels=1).network
    with pytest.raises(SignalError, match="the teacher tells 5 classes apart, and digits has 10"):
        distil(five, data)
    with pytest.raises(SignalError, match="the student tells 5 classes apart, and digits has 10"):
        distil(student(), data, student=five)


def test_a_tracker_gets_the_metrics(teacher: torch.nn.Module, data: ImageData, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = distil(teacher, data, name="tracked", runs_dir=tmp_path, trackers=["tensorboard"])
    assert done.folder is not None
    assert list(done.folder.rglob("events.out.tfevents*"))


def test_a_tracker_that_is_not_installed_is_named(teacher: torch.nn.Module, data: ImageData, tmp_path: Path) -> None:
    try:
        import trackio  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[track\]'"):
            distil(teacher, data, name="tracked", runs_dir=tmp_path, trackers=["trackio"])
    else:
        pytest.skip("trackio is installed here")


def test_overwrite_keeps_the_old_run_until_the_new_one_has_passed_its_checks(
    teacher: torch.nn.Module, data: ImageData, tmp_path: Path
) -> None:
    distil(teacher, data, name="one", runs_dir=tmp_path)
    before = (tmp_path / "one" / "result.json").read_text()
    with pytest.raises(WeightsError):
        distil("convnet_tiny@nowhere.safetensors", data, name="one", runs_dir=tmp_path, overwrite=True)  # type: ignore[arg-type]
    assert (tmp_path / "one" / "result.json").read_text() == before
    distil(teacher, data, name="one", runs_dir=tmp_path, overwrite=True, seed=3)
    assert json.loads((tmp_path / "one" / "result.json").read_text())["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_one_objective_serves_many_runs(teacher: torch.nn.Module, data: ImageData) -> None:
    objective: Any = limbeck.CE() + limbeck.ICD()
    one, two = (distil(teacher, data, objective) for _ in range(2))
    assert same(weights(one), weights(two))


def test_what_its_owner_froze_stays_frozen(teacher: torch.nn.Module, data: ImageData) -> None:
    learner = student()
    learner.body.requires_grad_(False)
    start = {name: value.clone() for name, value in learner.state_dict().items()}
    done = distil(teacher, data, student=learner)
    assert torch.equal(start["body.0.weight"], weights(done)["body.0.weight"])
    assert not torch.equal(start["head.weight"], weights(done)["head.weight"])
    assert [p.requires_grad for p in done.student.parameters()] == [False, False, True, True]


def test_the_folder_says_what_was_run_and_another_run_does_not_resume_it(
    teacher: torch.nn.Module, data: ImageData, tmp_path: Path
) -> None:
    one: Any = limbeck.CE() + limbeck.KD(temperature=2)
    distil(teacher, data, one, name="one", runs_dir=tmp_path)
    assert "objective: ce() + kd(temperature=2)" in (tmp_path / "one" / "config.yaml").read_text()
    other: Any = limbeck.CE() + limbeck.KD(temperature=9)
    with pytest.raises(RunFolderError, match=r"objective: 'ce\(\) \+ kd\(temperature=2\)' then"):
        distil(teacher, data, other, name="one", runs_dir=tmp_path, resume=True)


def test_no_hook_stays_on_the_networks(teacher: torch.nn.Module, data: ImageData) -> None:
    done = distil(teacher, data, "icd+kd")
    done.student(torch.zeros(2, 1, 8, 8)).sum().backward()
    copy.deepcopy(done.student)
    for network in (teacher, done.student):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_environment_for_accumulation_changes_nothing(
    teacher: torch.nn.Module, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = distil(teacher, data)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert same(weights(plain), weights(distil(teacher, data)))


def test_the_last_weights_are_called_last(teacher: torch.nn.Module) -> None:
    without = load_data("digits", train_limit=160)
    object.__setattr__(without, "val", None)
    result = distil(teacher, without, select="best").result
    assert (result.select, result.validation_best, result.teacher_validation) == ("last", None, None)


def test_evaluating_within_an_epoch_changes_nothing(teacher: torch.nn.Module, data: ImageData) -> None:
    class Looking(Callback):
        def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
            loop.evaluate(loop.validation())

    def learner() -> torch.nn.Module:
        torch.manual_seed(0)
        return limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network

    plain = distil(teacher, data, student=learner(), log_steps=2)
    assert same(weights(plain), weights(distil(teacher, data, student=learner(), log_steps=2, callbacks=[Looking()])))


def test_a_loss_that_is_not_finite_never_reaches_the_checkpoint(
    teacher: torch.nn.Module, data: ImageData, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteError):
        distil(
            teacher,
            data,
            student=diverging(num_classes=10, in_channels=1),
            name="b",
            runs_dir=tmp_path,
            checkpoint_steps=1,
        )
    saved = torch.load(tmp_path / "b" / "checkpoints" / "last.pt", weights_only=True)
    assert saved["position"]["step"] == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"warmup_epochs": 3}, "warm-up must be shorter"), ({"trackers": ["trackio"]}, "trackio")],
    ids=["warm-up", "tracker"],
)
def test_settings_are_checked_before_the_teacher_is_scored(
    data: ImageData, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(LimbeckError, match=sentence):
        distil(student(7), data, **settings)

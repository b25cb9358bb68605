"""Weights that change over the epochs, in real runs: logged, told anew in each stage, written down, and resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import limbeck
from limbeck.config import DistillSettings
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.engine.interrupt import Interrupted
from limbeck.job import Distilled, job_of
from limbeck.models import load_state
from limbeck.objectives import CE, KD, Decay
from limbeck.runs import read_metrics

OBJECTIVE = "ce + 2*decay(8, 0.5)*kd(temperature=2)"
SETTINGS: dict[str, Any] = {
    "teacher": "convnet_tiny",
    "student": "convnet(widths=[4, 8])",
    "data": "digits",
    "objective": OBJECTIVE,
    "stages": [{"objective": "decay(3, 0.5)*kd()", "epochs": 2}],
    "train_limit": 128,
    "test_limit": 60,
    "epochs": 3,
    "batch_size": 32,
    "log_steps": 2,
    "allow_weak_teacher": True,
}


def settings(folder: Path, **changes: Any) -> DistillSettings:
    return DistillSettings.make({**SETTINGS, "runs_dir": folder, "name": "run", **changes})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    return run(job_of(settings(tmp_path_factory.mktemp("undisturbed"))))


def weights(folder: Path) -> list[tuple[int, float, float]]:
    """Stage, epoch that runs, and logged weight, at each line of training."""
    found = []
    for record in read_metrics(folder):
        if record["split"] == "train":
            found.append((record["stage"], record["epoch"], record["weight.kd"]))
    return found


def test_the_weight_of_each_epoch_is_logged_and_starts_anew_in_each_stage(undisturbed: Distilled) -> None:
    assert undisturbed.folder is not None
    found = weights(undisturbed.folder)
    # The last line of an epoch stands at its end: 1.0 is of the first, k = 0.
    expected = [((3, 16)[stage]) * 0.5 ** (-(-epoch // 1) - 1) for stage, epoch, _ in found]
    assert [weight for *_, weight in found] == pytest.approx(expected)
    assert {stage for stage, *_ in found} == {0, 1}
    assert {weight for *_, weight in found} == {3.0, 1.5, 16.0, 8.0, 4.0}


def test_the_result_and_the_recipe_hold_the_expression(undisturbed: Distilled) -> None:
    assert undisturbed.folder is not None
    assert undisturbed.result.objective == "ce() + 2*decay(8, 0.5)*kd(temperature=2)"
    recipe = yaml.safe_load((undisturbed.folder / "config.yaml").read_text(encoding="utf-8"))
    assert recipe["objective"] == OBJECTIVE


def same(one: Distilled, other: Distilled) -> bool:
    assert one.folder is not None
    assert other.folder is not None
    first, second = (load_state(done.folder / "student.safetensors") for done in (one, other) if done.folder)
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step == self.step:
            loop.save()
            raise Interrupted(2, loop.position.step, loop.folder)


# Four steps an epoch: in the middle of the second epoch of the first stage, and of the last one of the second.
@pytest.mark.parametrize("step", [6, pytest.param(18, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, undisturbed: Distilled, step: int) -> None:
    with pytest.raises(Interrupted):
        run(job_of(settings(tmp_path)), callbacks=[StopAt(step)])
    resumed = run(job_of(settings(tmp_path, resume=True)))
    assert same(resumed, undisturbed)
    assert resumed.folder is not None
    assert undisturbed.folder is not None
    assert weights(resumed.folder) == weights(undisturbed.folder)


def test_python_makes_the_same_run_and_leaves_its_objective_as_it_was(undisturbed: Distilled, tmp_path: Path) -> None:
    objective = CE() + 2 * Decay(8, 0.5) * KD(temperature=2)
    rest = {key: value for key, value in SETTINGS.items() if key not in ("teacher", "student", "data", "objective")}
    done = limbeck.distill(
        "convnet_tiny", "convnet(widths=[4, 8])", "digits", objective, **rest, runs_dir=tmp_path, name="run"
    )
    assert same(done, undisturbed)
    assert objective.monitors()["weight.kd"] == 16


def test_compare_takes_a_range_in_a_schedule() -> None:
    done = limbeck.compare(
        "convnet_tiny",
        "convnet(widths=[4, 8])",
        "digits",
        "ce + decay([1, 4], 0.5)*kd()",
        baselines=False,
        **{key: SETTINGS[key] for key in ("train_limit", "test_limit", "batch_size", "allow_weak_teacher")},
        epochs=1,
        seeds=1,
    )
    assert sorted(result.objective for result in done.results.values()) == [
        "ce() + decay(1, 0.5)*kd()",
        "ce() + decay(4, 0.5)*kd()",
    ]

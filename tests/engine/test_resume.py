"""A run that is killed and resumed ends where an undisturbed one ends, to the last bit."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from limbeck.config import DistillSettings
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.engine.checkpoint import load_checkpoint
from limbeck.engine.interrupt import Interrupted
from limbeck.errors import RunFolderError
from limbeck.job import job_of
from limbeck.runs import read_metrics

SETTINGS: dict[str, Any] = {
    "teacher": "convnet_tiny",
    "student": "tests.engine.networks:with_batch_norm",
    "allow_weak_teacher": True,
    "objective": "icd+kd",
    "stages": [{"objective": "kd() + icd()", "epochs": 1}],
    "train_limit": 320,
    "epochs": 2,
    "batch_size": 32,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "ema": 0.9,
    "clip_norm": 1.0,
    "checkpoint_steps": 4,
    "log_steps": 3,
    "augment": "crop=1,cutout=2",
}


def settings(folder: Path, **changes: Any) -> DistillSettings:
    return DistillSettings.make({**SETTINGS, "runs_dir": folder, "name": "run", **changes})


class KillAt(Callback):
    """Ends the process at a step, as a crash would: no handler runs."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(folder: Path, step: int, in_write: bool) -> None:
    torch.set_num_threads(1)
    if in_write:
        _die_in_the_second_write()
    run(job_of(settings(folder)), callbacks=[KillAt(step)] if step else [])


def _die_in_the_second_write() -> None:
    whole, count = torch.save, iter(range(100))

    def half(state: object, path: Path) -> None:
        whole(state, path)
        if next(count) == 1:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    run(job_of(settings(folder)))
    return folder / "run"


def records(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in read_metrics(folder)]


# 10 steps an epoch: before the first checkpoint, inside an epoch, between the stages, in the last epoch, and in mid-write.
@pytest.mark.parametrize(
    ("step", "in_write"),
    [
        pytest.param(3, False, marks=pytest.mark.slow),
        pytest.param(9, False, marks=pytest.mark.slow),
        pytest.param(12, False, marks=pytest.mark.slow),
        pytest.param(24, False, marks=pytest.mark.slow),
        (0, True),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    tmp_path: Path, undisturbed: Path, server: Any, step: int, in_write: bool
) -> None:
    child = server.Process(target=train_and_die, args=(tmp_path, step, in_write))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()

    run(job_of(settings(tmp_path, resume=True)))

    expected, found = (load_file(folder / "student.safetensors") for folder in (undisturbed, tmp_path / "run"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert records(tmp_path / "run") == records(undisturbed)
    results = [json.loads((folder / "result.json").read_text()) for folder in (undisturbed, tmp_path / "run")]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["validation_best"] == results[1]["validation_best"]


def test_a_signal_saves_and_stops_between_two_steps(tmp_path: Path, undisturbed: Path) -> None:
    class Interrupting(Callback):
        def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
            if loop.position.step == 15:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM after step 15") as stopped:
        run(job_of(settings(tmp_path)), callbacks=[Interrupting()])
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    run(job_of(settings(tmp_path, resume=True)))
    expected, found = (load_file(folder / "student.safetensors") for folder in (undisturbed, tmp_path / "run"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def train_until_the_disk_is_full(folder: Path) -> None:
    class FullDisk(Callback):
        def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
            if loop.position.step == 6:
                # The system then refuses to make any file longer than this, as a full disk does.
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    torch.set_num_threads(1)
    try:
        run(job_of(settings(folder)), callbacks=[FullDisk()])
    except OSError:
        os._exit(17)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, undisturbed: Path, server: Any) -> None:
    child = server.Process(target=train_until_the_disk_is_full, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 17
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["last.pt"]
    assert load_checkpoint(checkpoints / "last.pt")["position"]["step"] == 4
    run(job_of(settings(tmp_path, resume=True)))
    expected, found = (load_file(folder / "student.safetensors") for folder in (undisturbed, tmp_path / "run"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_finished_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    run(job_of(settings(tmp_path, epochs=1)))
    before = load_file(tmp_path / "run" / "student.safetensors")
    run(job_of(settings(tmp_path, epochs=1, resume=True)))
    after = load_file(tmp_path / "run" / "student.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_run_must_have_the_same_settings(tmp_path: Path) -> None:
    run(job_of(settings(tmp_path, epochs=1)))
    with pytest.raises(RunFolderError, match=r"other settings.*batch_size: 32 then, 16 now"):
        run(job_of(settings(tmp_path, epochs=1, batch_size=16, resume=True)))


def test_a_run_of_an_older_limbeck_goes_on(tmp_path: Path) -> None:
    run(job_of(settings(tmp_path, epochs=1)))
    config = tmp_path / "run" / "config.yaml"
    newer = {"assistants", "taught_by", "label_noise", "momentum"}
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({name: value for name, value in values.items() if name not in newer}))
    run(job_of(settings(tmp_path, epochs=1, resume=True)))
    with pytest.raises(RunFolderError, match=r"momentum: 0\.9 then, 0\.5 now"):
        run(job_of(settings(tmp_path, epochs=1, resume=True, momentum=0.5)))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(job_of(settings(tmp_path, epochs=1)))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(RunFolderError, match=r"last\.pt cannot be read"):
        run(job_of(settings(tmp_path, epochs=1, resume=True)))

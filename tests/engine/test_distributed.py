"""Two processes with half of every batch each train the student that one process with the whole batch trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.comparison import run_comparison
from limbeck.config import CompareSettings, DistillSettings
from limbeck.contest import contest_of
from limbeck.distillation import run
from limbeck.job import job_of
from limbeck.runs import read_metrics

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "teacher": "convnet_tiny",
    "student": "tests.engine.networks:small",
    "allow_weak_teacher": True,
    "objective": "icd+kd",
    "train_limit": 160,
    "batch_size": 32,
    "epochs": 2,
    "log_steps": 1,
    "device": "cpu",
    "name": "run",
}


def train(folder: Path, changes: dict[str, Any], place: dict[str, str] | None = None) -> None:
    torch.set_num_threads(1)
    os.environ.update(place or {})
    run(job_of(DistillSettings.make({**SETTINGS, "runs_dir": folder, **changes})))


def train_in_two(
    server: Any, folder: Path, changes: dict[str, Any], target: Callable[..., None] = train, exits: int = 0
) -> Path:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun and `accelerate launch` tell the processes that they start.
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    places = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    children = [server.Process(target=target, args=(folder, changes, place)) for place in places]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [exits, exits]
    return folder / "run"


def check_equal(one: Path, two: Path, terms: tuple[str, ...]) -> None:
    assert [json.loads((folder / "result.json").read_text())["processes"] for folder in (one, two)] == [1, 2]
    records = [[r for r in read_metrics(folder) if r["split"] == "train"] for folder in (one, two)]
    for alone, together in zip(*records, strict=True):
        for term in terms:
            assert together[term] == pytest.approx(alone[term], rel=2e-5, abs=1e-6)
    first, second = (load_file(folder / "student.safetensors") for folder in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ("icd+kd", ("loss", "ce", "icd.contrast", "icd.invariance", "kd", "train_accuracy")),
        # No cross-entropy: the classifier gets no gradient, which DDP must be told.
        pytest.param(
            "icd(exclude_same_class=True)", ("loss", "icd.contrast", "icd.invariance"), marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_equal_one(server: Any, tmp_path: Path, objective: str, terms: tuple[str, ...]) -> None:
    train(tmp_path / "one", {"objective": objective})
    two = train_in_two(server, tmp_path / "two", {"objective": objective})
    check_equal(tmp_path / "one" / "run", two, terms)


@pytest.mark.slow
def test_two_processes_share_one_budget(server: Any, tmp_path: Path) -> None:
    changes = {"objective": "icd+kd", "teacher_budget": 96, "train_limit": None}
    train(tmp_path / "one", changes)
    two = train_in_two(server, tmp_path / "two", changes)
    check_equal(tmp_path / "one" / "run", two, ("loss", "ce", "kd"))
    assert json.loads((two / "result.json").read_text())["teacher_calls"] == 96


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        (
            "dml(peers='same, tests.engine.networks:small')",
            ("dml.ce", "dml.mutual", "dml.peer1.ce", "dml.peer2.mutual"),
        ),
        # The gate's batch norm is over the samples of both.
        ("one(warmup_epochs=0)", ("one.ce", "one.from_ensemble", "one.ensemble.ce", "one.branch2.ce")),
    ],
)
def test_two_processes_have_the_companions_of_one(
    server: Any, tmp_path: Path, objective: str, terms: tuple[str, ...]
) -> None:
    changes = {"objective": objective, "student": "tests.engine.networks:two_stages"}
    train(tmp_path / "one", changes)
    two = train_in_two(server, tmp_path / "two", changes)
    check_equal(tmp_path / "one" / "run", two, (*terms, "loss", "train_accuracy"))


def compare(folder: Path, changes: dict[str, Any], place: dict[str, str] | None = None) -> None:
    torch.set_num_threads(1)
    os.environ.update(place or {})
    values = {name: value for name, value in SETTINGS.items() if name != "objective"}
    own = {"objectives": ["icd", "dkd"], "seeds": 1, "augment": "crop=1,flip", "teacher_cache": folder / "cache"}
    run_comparison(contest_of(CompareSettings.make({**values, **own, "runs_dir": folder, **changes})))


@pytest.mark.slow
def test_two_processes_compare_what_one_compares(server: Any, tmp_path: Path) -> None:
    """With the teacher's answers from a cache that the two write together."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    compare(tmp_path / "one", {})
    two = train_in_two(server, tmp_path / "two", {}, target=compare)
    for name in ("alone-seed0", "kd-seed0", "icd-seed0", "dkd-seed0"):
        check_equal(tmp_path / "one" / "run" / name, two / name, ("loss",))
    assert (two / "table.md").is_file()


@pytest.mark.slow
def test_torchrun_starts_the_command_line(tmp_path: Path) -> None:
    values = {key: value for key, value in SETTINGS.items() if key not in ("allow_weak_teacher", "name")}
    options = [part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    common = ["-m", "limbeck", "distill", *options, "--allow-weak-teacher", "--quiet", "--runs-dir", str(tmp_path)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, command in (("one", common), ("two", [*torchrun, *common])):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command, "--name", name],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    check_equal(tmp_path / "one", tmp_path / "two", ("loss", "icd.contrast"))


@pytest.mark.slow
def test_a_bad_loss_ends_every_process(server: Any, tmp_path: Path) -> None:
    train_in_two(server, tmp_path, {"student": "tests.engine.networks:diverging"}, exits=1)
    assert not (tmp_path / "run" / "result.json").exists()

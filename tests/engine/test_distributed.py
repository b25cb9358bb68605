"""Two processes with half of every batch each train the student that one process with the whole batch trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.runs import read_metrics

SCRIPT = Path(__file__).with_name("train_here.py")
ROOT = SCRIPT.parents[2]


def launch(folder: Path, *settings: str, launcher: tuple[str, ...] = ()) -> Path:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        *(launcher or (str(SCRIPT),)),
        *([str(SCRIPT)] if launcher else []),
        str(folder),
        *settings,
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


# Not `accelerate launch --num_processes 2 --cpu`: Accelerate 1.15 starts a single process for it and says nothing.
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def losses(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(folder) if record["split"] == "train"]


@pytest.mark.parametrize("objective", ["icd+kd"])
def test_two_processes_equal_one(tmp_path: Path, objective: str) -> None:
    one = launch(tmp_path / "one", f"objective={objective}")
    two = launch(tmp_path / "two", f"objective={objective}", launcher=TWO_PROCESSES)
    assert [json.loads((run / "result.json").read_text())["processes"] for run in (one, two)] == [1, 2]
    for alone, together in zip(losses(one), losses(two), strict=True):
        for term in ("loss", "ce", "icd.contrast", "icd.invariance", "kd", "train_accuracy"):
            assert together[term] == pytest.approx(alone[term], rel=2e-5, abs=1e-6)
    first, second = (load_file(folder / "student.safetensors") for folder in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)

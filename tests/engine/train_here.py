"""Distils in however many processes it is started in: ``train_here.py FOLDER [setting=value …]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml

from limbeck.config import DistillSettings
from limbeck.distillation import job_of, run

SETTINGS = {
    "teacher": "convnet_tiny",
    "student": "tests.engine.networks:small",
    "allow_weak_teacher": True,
    "objective": "icd+kd",
    "train_limit": 160,
    "batch_size": 32,
    "epochs": 2,
    "log_steps": 1,
    "device": "cpu",
}


def main() -> None:
    torch.set_num_threads(1)
    given = dict(item.split("=", 1) for item in sys.argv[2:])
    values = {
        **SETTINGS,
        "runs_dir": Path(sys.argv[1]),
        "name": "run",
        **{k: yaml.safe_load(v) for k, v in given.items()},
    }
    run(job_of(DistillSettings.make(values)))


if __name__ == "__main__":
    main()

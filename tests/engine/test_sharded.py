"""A student sharded by FSDP2 over two processes trains as a whole one does, is scored, kept and resumed.

Accelerate shards on accelerators only, so the test puts PyTorch's own ``fully_shard`` where Accelerate would.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from limbeck.engine.loop import Loop
from limbeck.errors import SettingError
from tests.engine import test_distributed
from tests.engine.test_distributed import check_equal, train_in_two


def prepare(
    self: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, AcceleratedOptimizer]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    shards = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [shards[names[parameter]] for parameter in group["params"]]
    return model, AcceleratedOptimizer(optimizer)


def train(folder: Path, changes: dict[str, Any], place: dict[str, str] | None = None) -> None:
    Accelerator.prepare = prepare  # type: ignore[method-assign]
    test_distributed.train(folder, changes, place)


def train_and_die(folder: Path, changes: dict[str, Any], place: dict[str, str]) -> None:
    save = Loop.save

    def save_and_die(loop: Loop) -> None:
        save(loop)
        os._exit(9)

    Loop.save = save_and_die  # type: ignore[method-assign]
    train(folder, changes, place)


def expect_refusal(folder: Path, changes: dict[str, Any], place: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="ema and stages are for whole parameters"):
        train(folder, changes, place)


@pytest.mark.slow
def test_two_shards_equal_one_whole_also_when_resumed(server: Any, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": "adamw", "clip_norm": 1.0, "checkpoint_steps": 3}
    test_distributed.train(tmp_path / "one", changes)
    train_in_two(server, tmp_path / "two", changes, train_and_die, exits=9)
    assert not (tmp_path / "two" / "run" / "result.json").exists()
    two = train_in_two(server, tmp_path / "two", {**changes, "resume": True}, train)
    check_equal(tmp_path / "one" / "run", two, ("loss", "ce", "icd.contrast", "kd"))


@pytest.mark.slow
def test_what_needs_whole_parameters_is_refused(server: Any, tmp_path: Path) -> None:
    train_in_two(server, tmp_path, {"ema": 0.5}, expect_refusal)

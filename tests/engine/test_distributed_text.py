"""Text in two processes: every token counts as it does in one, and each process answers prompts of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="language models are made by the package transformers")

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from limbeck.engine.loop import Loop
from limbeck.models.language import layers_of
from limbeck.runs import read_metrics

from .test_distributed import check_equal, train, train_in_two

TEXT: dict[str, Any] = {
    "data": "arithmetic(digits=3, train=48, val=11, test=11)",
    "teacher": "llama(layers=1, width=32, heads=2)",
    "student": "llama(layers=1, width=16, heads=2)",
    "objective": "ce + kl",
    "max_length": 16,
    "max_new_tokens": 6,
    "answers": 7,
    "batch_size": 8,
    "epochs": 1,
    "train_limit": None,
    "lr": 0.1,
}


def train_and_die(folder: Path, changes: dict[str, Any], place: dict[str, str]) -> None:
    save = Loop.save

    def save_and_die(loop: Loop) -> None:
        save(loop)
        os._exit(9)

    Loop.save = save_and_die  # type: ignore[method-assign]
    train(folder, changes, place)


def answers(folder: Path) -> Any:
    return json.loads((folder / "answers.json").read_text())


def test_two_processes_teach_what_one_teaches(server: Any, tmp_path: Path) -> None:
    # Texts are of different lengths, so that the processes have different numbers of tokens.
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, TEXT)
    train_in_two(server, two, TEXT)
    check_equal(one / "run", two / "run", ("loss", "ce", "kl", "train_accuracy"))
    assert answers(one / "run") == answers(two / "run")


def test_two_processes_write_what_one_writes_also_when_resumed(server: Any, tmp_path: Path) -> None:
    changes = {**TEXT, "policy": "mixed(speculative(top_k=3, block=2), fixed)", "checkpoint_steps": 2}
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, changes)
    train_in_two(server, two, changes, train_and_die, exits=9)
    assert not (two / "run" / "result.json").exists()
    train_in_two(server, two, {**changes, "resume": True})
    check_equal(one / "run", two / "run", ("loss", "ce", "kl", "train_accuracy"))
    written = [
        [record["written_tokens"] for record in read_metrics(folder / "run") if record["split"] == "train"]
        for folder in (one, two)
    ]
    assert written[0] == written[1]


def shard_every_layer(
    self: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, AcceleratedOptimizer]:
    """As Accelerate does on accelerators: each layer by itself, and the whole around them."""
    mesh = init_device_mesh("cpu", (2,))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for layer in layers_of(model.student.network):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    shards = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [shards[names[parameter]] for parameter in group["params"]]
    return model, AcceleratedOptimizer(optimizer)


def train_sharded(folder: Path, changes: dict[str, Any], place: dict[str, str]) -> None:
    Accelerator.prepare = shard_every_layer  # type: ignore[method-assign]
    train(folder, changes, place)


@pytest.mark.slow
def test_two_shards_write_and_learn_what_one_whole_does(server: Any, tmp_path: Path) -> None:
    # Tokens of the student are as many forward passes as its longest answer has, in each process another number.
    changes = {**TEXT, "policy": "mixed(student, fixed)", "student": "llama(layers=2, width=16, heads=2)"}
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, changes)
    train_in_two(server, two, changes, train_sharded)
    check_equal(one / "run", two / "run", ("loss", "ce", "kl", "train_accuracy"))
    assert answers(one / "run") == answers(two / "run")

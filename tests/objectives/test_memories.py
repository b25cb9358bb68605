"""What objectives remember between steps is the same in two processes with half of every batch as in one with the whole."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from limbeck.objectives import Objective, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_signals

EXPRESSIONS = [
    "crd(negatives=3, dim=4)",
    "rrd(queue=12, dim=4)",
    "rrd(queue=5, dim=4)",
    "rrd(variant='2024', queue=12, dim=4)",
]
LABELS = torch.arange(20) % 3
STEPS = 3


def signals(step: int) -> tuple[Signals, Signals, Batch]:
    index = torch.randperm(20, generator=torch.Generator().manual_seed(step))[:8]
    batch = Batch(torch.zeros(8, 1), LABELS[index], index=index)
    return sample_signals(10 * step + 1), sample_signals(10 * step + 2, embedding_size=7), batch


def half(rank: int, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals, Batch]:
    rows = slice(rank * 4, (rank + 1) * 4)
    return student.map(lambda value: value[rows]), teacher.map(lambda value: value[rows]), batch[rows]


def trained(expression: str, rank: int | None = None) -> Objective:
    """After some steps with the whole of each batch, or with one half of it."""
    objective = parse_objective(expression)
    objective.set_training_labels(LABELS)
    for step in range(STEPS + 1):
        student, teacher, batch = signals(step) if rank is None else half(rank, *signals(step))
        if step == 0:
            torch.manual_seed(0)
            objective.build(student, teacher)
            # What each process draws is its own.
            torch.manual_seed(rank or 0)
        else:
            objective(student, teacher, batch)
    return objective


def one_of_two(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    states = {expression: trained(expression, rank).state_dict() for expression in EXPRESSIONS}
    torch.save(states, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_banks_and_queues_of_two_processes_are_those_of_one(server: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(one_of_two, args=(tmp_path, port), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for expression in EXPRESSIONS:
        whole = trained(expression)
        remembered = {name for name, _ in whole.named_buffers()} & whole.state_dict().keys()
        assert len(remembered) >= 3
        for name in remembered:
            assert torch.equal(first[expression][name], second[expression][name]), f"{expression}: {name}"
            torch.testing.assert_close(
                first[expression][name], whole.state_dict()[name], rtol=1e-5, atol=1e-6, msg=f"{expression}: {name}"
            )

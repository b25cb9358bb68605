"""The check of the contract that needs two processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from limbeck.objectives import parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing.samples import BATCH, CLASSES, built, loss_of, rows_of, sample_batch, student_for, teacher_for


def check_two_processes(expressions: Sequence[str]) -> None:
    """Two processes with half the batch each get the loss and the gradients of one process with the whole batch.

    Starts two processes on the CPU (gloo) for all expressions together. Those whose ``local_negatives`` is True keep to the
    samples of one process by definition and are left out.
    """
    compared = [expression for expression in expressions if not parse_objective(expression).local_negatives]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The classes go along so that the new processes import the files that register them.
    classes = list({type(part) for expression in compared for _, _, part in parse_objective(expression).entries()})
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if method == "forkserver":
        # The server imports once, for this call and those after it.
        multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    try:
        start_processes(_one_of_two, args=(compared, port, classes), nprocs=2, start_method=method)
    except ProcessRaisedException as error:
        raise AssertionError(str(error)) from None


def _one_of_two(rank: int, expressions: list[str], port: int, classes: list[type]) -> None:
    torch.set_num_threads(1)
    references = [_whole_batch(expression) for expression in expressions]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        for expression, reference in zip(expressions, references, strict=True):
            _compare_with_whole(expression, rank, *reference)
    finally:
        dist.destroy_process_group()


class _Heads(nn.Module):
    """A stand-in for a student: one weight on each signal, so that DDP has parameters to average."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, CLASSES))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        assert student.logits is not None
        assert student.embedding is not None
        seen = student.map(lambda value: value * self.gain)
        seen = replace(seen, logits=student.logits * self.weight, embedding=student.embedding * self.scale)
        return loss_of(self.objective, seen, teacher, batch)


def _whole_batch(expression: str) -> tuple[Tensor, dict[str, Tensor]]:
    objective = built(expression)
    module = _Heads(objective)
    loss = module(student_for(objective), teacher_for(objective), sample_batch())
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def _compare_with_whole(expression: str, rank: int, expected: Tensor, gradients: dict[str, Tensor]) -> None:
    rows = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    objective = built(expression)
    teacher = rows_of(teacher_for(objective), rows)
    module = _Heads(objective)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in gradients)
    parallel = nn.parallel.DistributedDataParallel(module)
    loss = parallel(rows_of(student_for(objective), rows), teacher, sample_batch()[rows])
    loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    mean /= 2
    assert torch.allclose(mean, expected, rtol=1e-5, atol=1e-6), (
        f"{expression}: {mean} in two processes, {expected} in one"
    )
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            same = torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
            assert same, f"{expression}: the gradient of {name} differs between two processes and one"

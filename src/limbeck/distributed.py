"""What distillation needs of torch.distributed: rows of all ranks in one tensor, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._compile import _disable_dynamo


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        rows = rows.contiguous()
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(gathered, rows)
        return torch.cat(gathered)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        # A copy: autograd may hand the same memory to others, and all_reduce writes in place.
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[rank() * context.count : (rank() + 1) * context.count]


# As torch.compiler.disable, but torch._dynamo (seconds to import) is loaded at the first call, not here.
@_disable_dynamo
def _gather(rows: Tensor) -> Tensor:
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def gather_rows(rows: Tensor) -> Tensor:
    """(W·N, …) rows of all W ranks in rank order, from the (N, …) of this one; N is equal on all.

    The backward pass sums the gradients that all ranks have for a row. When every rank computes the same loss from the
    gathered rows and DDP averages over ranks, parameters get exactly the gradient of one process with the whole batch.
    """
    return rows if world_size() == 1 else _gather(rows)


def gather_views(rows: Tensor, copies: int) -> Tensor:
    """(V, N, …) rows of the N samples of all ranks by view, from the (V·n, …) of this one; V is ``Batch.copies``."""
    # Gathered by sample: each process has all views of its own samples, one view after the other.
    by_sample = rows.reshape(copies, -1, *rows.shape[1:]).transpose(0, 1)
    return gather_rows(by_sample).transpose(0, 1)

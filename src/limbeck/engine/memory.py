"""How much memory a student takes, and how much there is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.config import RunSettings
from limbeck.engine.probe import unchanged
from limbeck.engine.trainable import Trainable
from limbeck.signals import Batch, Signals, tensors_in

_STATES = {"sgd": 1, "adamw": 2}


@dataclass(frozen=True)
class Footprint:
    """Bytes that a student takes.

    kept: throughout its training: weights, heads, memories, the optimizer's state, the moving average. passing: while its
    step is under way: what the backward pass needs, and the gradients.
    """

    kept: int = 0
    passing: int = 0


def footprint(trainable: Trainable, inputs: Any, teacher: Signals, batch: Batch, settings: RunSettings) -> Footprint:
    """The bytes of a built student, found by one forward pass; weights, buffers and random numbers are as before after it.

    What operators need inside for a moment is not seen, nor what lies idle in an allocator.
    """
    held = sum(value.nbytes for value in (*trainable.parameters(), *trainable.buffers()))
    learns = sum(parameter.nbytes for parameter in trainable.parameters() if parameter.requires_grad)
    kept = held + _STATES[settings.optimizer] * learns
    if settings.ema:
        kept += sum(value.nbytes for value in trainable.student.state_dict().values())
    own = {
        value.untyped_storage().data_ptr()
        for value in (*trainable.parameters(), *trainable.buffers(), *tensors_in(inputs))
    }
    saved: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return value

    with unchanged(trainable), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        terms, _ = trainable(inputs, teacher, batch)
        total = torch.stack(list(terms.values())).sum()
    del terms, total
    return Footprint(kept, sum(saved.values()) + learns)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of the machine for a CPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return int(psutil.virtual_memory().available)


def give_back_memory() -> None:
    """Give memory that set-up took and freed back to the system, where the C library can (glibc keeps it otherwise)."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def groups_that_fit(footprints: Iterable[Footprint], free: int, most: int | None) -> list[list[int]]:
    """Numbers of students in groups, in order: each group's memory is below ``free`` bytes, and its size at most ``most``.

    One that does not fit by itself is a group by itself.
    """
    groups: list[list[int]] = []
    kept = passing = 0
    for number, each in enumerate(footprints):
        together = kept + each.kept + max(passing, each.passing)
        if groups and together <= free and (most is None or len(groups[-1]) < most):
            groups[-1].append(number)
            kept, passing = kept + each.kept, max(passing, each.passing)
        else:
            groups.append([number])
            kept, passing = each.kept, each.passing
    return groups

"""Steps that all processes of a run take, and fail in, together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from limbeck.distributed import rank, world_size
from limbeck.errors import CacheError, LimbeckError

T = TypeVar("T")


@contextmanager
def together() -> Iterator[None]:
    """A step of every process, which waits for all at its end. If it failed in one, all raise the same CacheError.

    Without torch.distributed an error is raised as it is.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        if world_size() == 1:
            raise
        problem = error
    if world_size() == 1:
        return
    told: list[Any] = [None] * world_size()
    dist.all_gather_object(told, None if problem is None else _sentence(problem))
    found = next((text for text in told if text is not None), None)
    if found is not None:
        raise CacheError(found) from problem


def _sentence(problem: Exception) -> str:
    if isinstance(problem, LimbeckError):
        return str(problem)
    return f"the teacher cache failed in process {rank()}: {type(problem).__name__}: {problem}"


def of_first(value: T) -> T:
    """The first process's value, in all."""
    if world_size() == 1:
        return value
    told: list[Any] = [value]
    dist.broadcast_object_list(told)
    first: T = told[0]
    return first

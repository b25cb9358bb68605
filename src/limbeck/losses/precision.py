"""Losses are computed in float32 whatever the precision around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Run a loss outside autocast, with half-precision tensors raised to float32 (float64 stays).

    Sums of exponentials and differences of logarithms lose their sign in bfloat16: a Jensen-Shannon divergence comes out
    negative there.
    """

    @functools.wraps(function)
    def wrapper(*arguments: P.args, **keywords: P.kwargs) -> R:
        raised: Any = [_raise(value) for value in arguments]
        raised_keywords: Any = {name: _raise(value) for name, value in keywords.items()}
        values = (*arguments, *keywords.values())
        device = next((value.device.type for value in values if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device_type=device, enabled=False):
            return function(*raised, **raised_keywords)

    return wrapper


@in_float32
def project(rows: Tensor, head: nn.Linear) -> Tensor:
    """(N, out) rows through a linear head in the head's own precision: half precision could overflow in its gradient."""
    projected: Tensor = head(rows.to(head.weight.dtype))
    return projected


def _raise(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value

"""What the tests of objectives on logits (B, C) share: their inputs, a call, and softmax written as loops."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from limbeck.objectives import Objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_signals

Rows = list[list[float]]


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits (8, 5) of a student and of a teacher."""
    return sample_signals(0, dtype=dtype).logits, sample_signals(1, dtype=dtype).logits


def terms_of(
    objective: type[Objective],
    student: Tensor,
    teacher: Tensor,
    *,
    copies: int = 1,
    weight: Tensor | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """What an objective with these options says of these logits."""
    labels = torch.zeros(len(student), dtype=torch.int64)
    batch = Batch(torch.zeros(len(student), 1), labels, weight=weight, copies=copies)
    return objective(**options)(Signals(logits=student), Signals(logits=teacher), batch)


def softmax(logits: Tensor, temperature: float) -> Rows:
    rows = []
    for row in logits.tolist():
        total = sum(math.exp(value / temperature) for value in row)
        rows.append([math.exp(value / temperature) / total for value in row])
    return rows


def columns(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]

"""A teacher whose answer to a mixture of two texts is the mixture of its answers to each: a control of mixup."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from limbeck.signals import Batch, Signals
from limbeck.teachers.frozen import Teacher
from limbeck.tokens import Tokens


class MixedTargets:
    """Answers λ p(x) + (1 - λ) p(x') where the student sees the two texts x and x' mixed, p the teacher's softmax.

    As logits (B, C) the logarithm of that. Each row costs two answers, those of a view that does not mix too. All else that
    the teacher says is of the first text. What is not mixed goes to the teacher as it is.

    Args:
        teacher: the one that is asked about each text by itself.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.sees_inputs = teacher.sees_inputs

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        """See :class:`~limbeck.teachers.frozen.Teacher`."""
        if not isinstance(inputs, Tokens) or inputs.shares is None:
            return self._teacher.signals(inputs, batch)
        own, other = (self._teacher.signals(each, batch) for each in inputs.apart())
        assert own.logits is not None
        assert other.logits is not None
        assert batch.share is not None
        return replace(own, logits=_mixture(own.logits, other.logits, batch.share[:, None]))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """See :class:`~limbeck.teachers.frozen.Teacher`."""
        self._teacher.start_epoch(epoch, epochs)

    def check(self) -> None:
        """See :class:`~limbeck.teachers.frozen.Teacher`."""
        self._teacher.check()


def _mixture(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    parts = (one.float().log_softmax(dim=-1) + share.log(), other.float().log_softmax(dim=-1) + (1 - share).log())
    return torch.logaddexp(*parts)

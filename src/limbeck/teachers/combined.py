"""Several teachers that answer as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from limbeck.signals import Batch, Signals
from limbeck.teachers.frozen import Teacher
from limbeck.teachers.rules import Rule

Ask = Callable[[Tensor, Batch], Signals]
"""From the principal teacher's inputs, and the batch that they were made of, to another teacher's signals."""


class CombinedTeacher:
    """The principal teacher's signals with the logits that a rule makes of all teachers'.

    Args:
        principal: gives the embedding and the feature maps.
        others: the teachers beside it; with it in its place they are those that the rule is for.
        training: whether the rule may look at labels and indices.
    """

    sees_inputs = True

    def __init__(self, principal: Teacher, others: Sequence[Ask], rule: Rule, *, training: bool) -> None:
        self.principal, self.others, self.rule, self.training = principal, list(others), rule, training

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        told = self.principal.signals(inputs, batch)
        with torch.no_grad():
            logits = self.rule.in_order([_logits(told), *(_logits(ask(inputs, batch)) for ask in self.others)])
            made = self.rule.teach(logits, batch) if self.training else self.rule.answer(logits)
        return replace(told, logits=made)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """A curriculum goes on."""
        self.rule.start_epoch(epoch, epochs)

    def check(self) -> None:
        """Whatever the principal has left to say."""
        self.principal.check()


def _logits(signals: Signals) -> Tensor:
    assert signals.logits is not None
    return signals.logits.float()

"""A teacher that is a network, run as it is."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limbeck.signals import Batch, Signals


class Teacher(Protocol):
    """Where the teacher's Signals come from."""

    @property
    def sees_inputs(self) -> bool:
        """Whether ``signals`` looks at its inputs; where it does not, they need no preprocessing."""
        ...

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        """Signals without gradient for ``inputs``, the batch as the teacher's preprocessing made it."""
        ...

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Told the number of the epoch that begins, from 1, and of all epochs of the stage."""
        ...

    def check(self) -> None:
        """Raise what could not be raised by ``signals`` without waiting for the device."""
        ...


class FrozenTeacher:
    """A network that returns Signals, in eval mode and without gradient, whose parameters never change.

    It stands outside the trained module, so that no optimizer, DDP wrapper or checkpoint ever sees it.
    """

    sees_inputs = True

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        # no_grad and not inference_mode: the objective's heads save these tensors for their backward pass.
        with torch.no_grad():
            signals: Signals = self.network(inputs)
            return signals

    def differentiable(self, inputs: Tensor) -> Tensor:
        """Its logits (B, C), with their gradient by the inputs where that is asked for; its parameters get none."""
        signals: Signals = self.network(inputs)
        assert signals.logits is not None
        return signals.logits

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """All epochs are the same."""

    def check(self) -> None:
        """Nothing is left to say."""


class NoTeacher:
    """Stands in where an objective needs no teacher."""

    sees_inputs = False

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        return Signals()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """All epochs are the same."""

    def check(self) -> None:
        """Nothing is left to say."""

"""A teacher that is a network, run as it is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


class Teacher(Protocol):
    """Where the teacher's Signals come from."""

    def signals(self, inputs: Tensor, batch: Batch) -> Signals:
        """Signals without gradient for ``inputs``, the batch as the teacher's preprocessing made it."""
        ...


class FrozenTeacher:
    """A network in eval mode, without gradient, whose parameters never change.

    It stands outside the trained module, so that no optimizer, DDP wrapper or checkpoint ever sees it.
    """

    def __init__(self, network: Tapped) -> None:
        self.network = network.eval().requires_grad_(False)

    def signals(self, inputs: Tensor, batch: Batch) -> Signals:
        # no_grad and not inference_mode: the objective's heads save these tensors for their backward pass.
        with torch.no_grad():
            signals: Signals = self.network(inputs)
            return signals


class NoTeacher:
    """Stands in where an objective needs no teacher."""

    def signals(self, inputs: Tensor, batch: Batch) -> Signals:
        return Signals()

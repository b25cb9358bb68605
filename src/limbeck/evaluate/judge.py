"""A figure beside the score by which the weights of a run are selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Judge:
    """A figure on the validation split, higher for a better network.

    name: what metrics call it. of: from a network in eval mode to the figure; every process does all of it. Raises
    NonFiniteError where the network gives no finite numbers.
    """

    name: str
    of: Callable[[nn.Module], float]

"""What the teacher and the students of a session share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from limbeck.config import RunSettings, TeacherSettings
from limbeck.feeds import Feeds
from limbeck.networks import Network
from limbeck.signals import Batch
from limbeck.tasks.base import Task

Say = Callable[[str], None]


@dataclass
class Surroundings:
    """What teacher and students of a session share.

    probe: a batch of the training data. channels_last: whether images lie in memory with their channels last. say: gets a
    line for each thing a user wants to know.
    """

    accelerator: Accelerator
    settings: RunSettings
    distill: TeacherSettings
    feeds: Feeds
    probe: Batch
    say: Say
    channels_last: bool = False

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = self.accelerator.device
        return device

    def task_of(self, network: Network) -> Task:
        """How a network sees a batch."""
        return self.feeds.modality.task(network, channels_last=self.channels_last)

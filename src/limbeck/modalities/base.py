"""What a session asks of its data's kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.errors import SettingError
from limbeck.evaluate import Score
from limbeck.evaluate.judge import Judge
from limbeck.models.language import Adapters
from limbeck.models.spec import ModelSpec
from limbeck.networks import Network
from limbeck.runs import RunFolder
from limbeck.signals import Batch
from limbeck.tasks.base import Task


@dataclass(frozen=True)
class Examined:
    """What a network did on the test split beside its score: figures, and what :meth:`Modality.write` makes a file of."""

    figures: Mapping[str, float] = field(default_factory=dict)
    details: Any = None


def by_accuracy_alone(settings: RunSettings, samples: str) -> None:
    """Raise SettingError where weights are to be selected by a figure that such samples have not."""
    if settings.validate_by != "accuracy":
        raise SettingError(
            f"validate_by={settings.validate_by} is for collections that are searched, not for {samples}."
        )


class Modality(Protocol):
    """One kind of data, with the facts of one data set.

    samples: what samples are called in messages, in the plural. predictions: what is predicted, in the plural.
    """

    @property
    def samples(self) -> str: ...

    @property
    def predictions(self) -> str: ...

    @property
    def usual_epochs(self) -> int | None:
        """Passes over the data where the user does not say; None where nobody knows."""
        ...

    def facts(self) -> str | None:
        """The data in a line for the user; None where nothing is known."""
        ...

    def labels_by_index(self) -> Tensor | None:
        """(N,) int64 label of each training sample by its index; None where they are not known."""
        ...

    @staticmethod
    def spec(model: str) -> ModelSpec:
        """The parts of the text that names a network: a run's folder, a weights file, or a name.

        Raises SettingError where the text cannot be read.
        """
        ...

    def open(
        self,
        model: str | nn.Module,
        *,
        who: str,
        probe: Batch,
        device: torch.device,
        classifier: str | None,
        image_size: int | None = None,
        embedding: bool = True,
        lora: str | None = None,
    ) -> Network:
        """A network made or taken, on the device, tapped; see :func:`limbeck.networks.open_network`.

        ``lora``: adapters that alone are to learn in it, as the setting ``student_lora`` writes them; of text alone.
        """
        ...

    def task(self, network: Network, *, channels_last: bool) -> Task:
        """How a network sees a batch."""
        ...

    def examine(
        self, opened: Network, network: nn.Module, score: Score, settings: RunSettings, device: torch.device
    ) -> Examined:
        """More about a network that got this score on the test split. ``opened``: as it was opened, for training."""
        ...

    def judge(self, settings: RunSettings, device: torch.device) -> Judge | None:
        """What selects a student's weights on the validation split; None for the accuracy alone.

        Raises SettingError where the settings ask for what this data has not.
        """
        ...

    def write(
        self,
        folder: RunFolder,
        network: nn.Module,
        student: Examined | None,
        teacher: Examined | None,
        adapters: Adapters | None = None,
    ) -> None:
        """Write into a run's folder what comes with its student: ``network``, with what it and its teacher did on the test.

        ``adapters``: those that it learnt with, which are in its weights by now.
        """
        ...

    def card(self, name: str, network: Network) -> dict[str, str]:
        """What a weights file says of itself; ``name`` is the text that makes the network."""
        ...

"""Images, by name or from a user's own loaders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.data import ImageData
from limbeck.evaluate import Score
from limbeck.evaluate.judge import Judge
from limbeck.modalities.base import Examined, by_accuracy_alone
from limbeck.models.language import Adapters
from limbeck.models.spec import ModelSpec, parse_spec
from limbeck.networks import Network, card, open_network, resolve
from limbeck.runs import RunFolder
from limbeck.signals import Batch
from limbeck.tasks.vision import VisionTask


@dataclass(frozen=True)
class Images:
    """See :class:`~limbeck.modalities.Modality`. data: None for a user's own loaders, of which nothing is known.

    views: how training images are augmented, for the log.
    """

    data: ImageData | None
    views: str = ""

    @property
    def samples(self) -> str:
        return "images"

    @property
    def predictions(self) -> str:
        return "images"

    @property
    def usual_epochs(self) -> int | None:
        return None if self.data is None else self.data.recipe.epochs

    def facts(self) -> str | None:
        data = self.data
        if data is None:
            return None
        splits = {"train": data.train, "validation": data.val, "test": data.test}
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
        facts = "; ".join([f"{len(data.classes)} classes", *data.damage, f"views {self.views}"])
        return f"{data.name}: {sizes} images, {facts}"

    def labels_by_index(self) -> Tensor | None:
        return None if self.data is None else self.data.train.labels_by_index()

    @staticmethod
    def spec(model: str) -> ModelSpec:
        return parse_spec(resolve(model))

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
        return open_network(
            model,
            who=who,
            data=self.data,
            probe=probe,
            device=device,
            classifier=classifier,
            image_size=image_size,
            embedding=embedding,
        )

    def task(self, network: Network, *, channels_last: bool) -> VisionTask:
        return VisionTask(network.preprocess, channels_last)

    def examine(
        self, opened: Network, network: nn.Module, score: Score, settings: RunSettings, device: torch.device
    ) -> Examined:
        return Examined()

    def judge(self, settings: RunSettings, device: torch.device) -> Judge | None:
        by_accuracy_alone(settings, self.samples)
        return None

    def write(
        self,
        folder: RunFolder,
        network: nn.Module,
        student: Examined | None,
        teacher: Examined | None,
        adapters: Adapters | None = None,
    ) -> None:
        """Weights are all there is."""

    def card(self, name: str, network: Network) -> dict[str, str]:
        return card(name, self.data, network.preprocess)

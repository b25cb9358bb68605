"""Images, by name or from a user's own loaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.combination import Combination
from limbeck.config import RunSettings
from limbeck.data import ImageData
from limbeck.engine.adversary import Adversary, check_range
from limbeck.evaluate.record import Kind
from limbeck.modalities.base import Modality, check_not_served
from limbeck.models.spec import ModelSpec, parse_spec
from limbeck.networks import Network, card, open_network, resolve
from limbeck.objectives.base import Attack
from limbeck.signals import Batch
from limbeck.tasks.base import Task
from limbeck.tasks.vision import VisionTask
from limbeck.teachers import FrozenTeacher, Teacher

if TYPE_CHECKING:
    from limbeck.feeds import Feeds
    from limbeck.job import Job, Loaders
    from limbeck.surroundings import Surroundings
    from limbeck.teaching import Teaching


@dataclass(frozen=True)
class Images(Modality):
    """See :class:`~limbeck.modalities.Modality`. data: None for a user's own loaders, of which nothing is known.

    views: how training images are augmented, for the log.
    """

    same_samples = ("data", "image_size")
    combines: ClassVar[bool] = True
    quickly_made: ClassVar[bool] = True

    data: ImageData | None
    views: str = ""

    @staticmethod
    def claims(data: object, setting: str) -> bool:
        return True

    @staticmethod
    def read(jobs: Sequence[Job], accelerator: Accelerator, say: Callable[[str], None]) -> ImageData | Loaders:
        from limbeck.budget import check_budget
        from limbeck.feeds import check_image_settings, read_data
        from limbeck.job import Loaders

        job = jobs[0]
        data, budget = job.data, job.distill.teacher_budget
        check_budget(job.distill, loader=isinstance(data, Loaders))
        if isinstance(data, Loaders):
            return data
        check_image_settings(job.settings)
        if isinstance(data, ImageData):
            return data if budget is None else data.limited(budget)
        settings = job.settings if budget is None else job.settings.model_copy(update={"train_limit": budget})
        # The first process downloads what is missing; the others read it from the disk then.
        with accelerator.main_process_first():
            return read_data(settings)

    @staticmethod
    def feeds(data: ImageData | Loaders, settings: RunSettings, device: torch.device) -> Feeds:
        from limbeck.feeds import image_feeds, loader_feeds

        if isinstance(data, ImageData):
            return image_feeds(data, settings, device)
        return loader_feeds(data.train, data.validation, data.test, settings, device)

    @staticmethod
    def evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> ImageData:
        from limbeck.feeds import read_data

        return read_data(settings)

    @staticmethod
    def evaluated_as(data: ImageData) -> Kind:
        return "images"

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

    def teaching(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> Teaching:
        from limbeck.budget import BudgetedTeaching
        from limbeck.teaching import Teaching

        check_not_served(teacher, around.feeds.name)
        kind = Teaching if around.distill.teacher_budget is None else BudgetedTeaching
        return kind(teacher, needs, around)

    def adversary(self, teacher: Teacher, task: Task) -> Adversary | None:
        assert isinstance(task, VisionTask)
        return Adversary(teacher, task) if isinstance(teacher, FrozenTeacher) else None

    def check_companions(self) -> None:
        """Networks on images can have them."""

    def check_attack(self, attack: Attack, task: Task, probe: Batch, who: str) -> None:
        assert isinstance(task, VisionTask)
        check_range(attack, task, probe)

    def card(self, name: str, network: Network) -> dict[str, str]:
        return card(name, self.data, network.preprocess)

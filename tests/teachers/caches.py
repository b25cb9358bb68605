"""A small teacher with data, and its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck import create_model
from limbeck.data import ImageSplit, Preprocess, ResidentBatches, load_data, parse_view_sets
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped, find_classifier
from limbeck.teachers import CachePlan, FrozenTeacher, Identity, TeacherCache, identify, plan_cache, write_cache


class World:
    """convnet_tiny on digits: who teaches, on which samples, in which views."""

    def __init__(
        self,
        views: str = "crop=1,flip",
        cycle: int | None = None,
        samples: int = 40,
        seed: int = 0,
        batch_seed: int = 0,
    ) -> None:
        data = load_data("digits", train_limit=samples)
        self.split: ImageSplit = data.train
        self.preprocess = Preprocess(data.mean, data.std)
        torch.manual_seed(seed)
        self.network: nn.Module = create_model("convnet_tiny", num_classes=10, in_channels=1).network
        classifier = find_classifier(self.network, torch.zeros(2, 1, 8, 8))
        self.teacher = FrozenTeacher(Tapped(self.network, classifier=classifier, features=["stages.0"]))
        self.batches = ResidentBatches(self.split, parse_view_sets(views), 16, batch_seed, cycle=cycle)
        self.seen = 0

    def compute(self, batch: Batch) -> Signals:
        self.seen += len(batch)
        return self.teacher.signals(self.preprocess(batch.inputs), batch)

    def identity(self, **settings: Any) -> Identity:
        return identify(self.network, self.split, self.batches.slots, self.preprocess, **settings)

    def plan(self, keep: list[str] | None = None, **settings: Any) -> CachePlan:
        (probe,) = self.batches.at([(torch.arange(2), torch.zeros(2, dtype=torch.int64))])
        identity = self.identity(**settings)
        return plan_cache(identity, len(self.split), len(self.batches.slots), self.compute(probe), keep=keep)

    def write(self, folder: Path, compute: Callable[[Batch], Signals] | None = None, **settings: Any) -> TeacherCache:
        return write_cache(folder, self.plan(**settings), self.batches, compute or self.compute, batch_size=64)

"""Networks on images, and images brought to the channels and statistics that others have."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.data import ImageData, ImageSplit, Preprocess
from limbeck.data.stratify import choose
from limbeck.errors import SettingError, SignalError
from limbeck.evaluate.answers import answer, as_module, tapped
from limbeck.evaluate.bench import SPLITS, TEACHER, ClassBench, Figures
from limbeck.evaluate.collect import Read
from limbeck.evaluate.cost import costs
from limbeck.feeds import every_sample
from limbeck.networks import Network
from limbeck.progress import Watched
from limbeck.signals import Batch, Signals

# Weights of ITU-R BT.601, as Pillow has them.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ImageBench(ClassBench):
    """Networks on images, which ``data`` holds; what they say is made in one pass over a split."""

    kind = "images"
    data: ImageData = field(kw_only=True)

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.data.classes)

    def has(self, split: str) -> bool:
        return getattr(self.data, SPLITS[split]) is not None

    def samples_of(self, split: str) -> Iterable[Batch]:
        return self.batches(split_of(self.data, split))

    def batches(self, split: ImageSplit) -> Iterable[Batch]:
        """The split in order, without augmentation."""
        return self._told(self.data, split)

    def foreign_batches(self, data: ImageData, split: ImageSplit) -> Iterable[Batch]:
        """A split of other data, its images with as many channels as this data's."""
        return recoloured(self._told(data, split), self.data.in_channels)

    def _told(self, data: ImageData, split: ImageSplit) -> Iterable[Batch]:
        batches = every_sample(data, split, self.batch_size, self.device, self.workers)
        return Watched(batches, math.ceil(len(split) / self.batch_size), self.progress)

    def sample(self, limit: int) -> ImageSplit:
        """At most so many images of the split, the classes in proportion."""
        split = split_of(self.data, self.split)
        return split if limit >= len(split) else split.subset(choose(split.labels, limit, 0))

    def read(self, network: Network) -> Read:
        def read(batch: Batch) -> Signals:
            return answer(network, batch.inputs.to(self.device))

        return read

    def costs(self, files: Mapping[str, Path | None]) -> Figures:
        image = self._first().inputs[:1].to(self.device)
        modules = {who: as_module(network, image) for who, network in self.networks.items()}
        return {"cost": costs(modules, batch_size=self.batch_size, files=files, teacher=TEACHER)}

    def tap(self, parts: Collection[str], classifiers: Mapping[str, str]) -> None:
        first = self._first()
        for who, network in self.networks.items():
            found, remarks = tapped(network, first, stages="fidelity" in parts, classifier=classifiers.get(who))
            self.networks[who] = found
            for remark in remarks:
                self.say(f"{who}: {remark}")

    def _first(self) -> Batch:
        return next(iter(every_sample(self.data, split_of(self.data, self.split), 2, self.device, 0)))


def check_classes(who: str, logits: Tensor | None, data: ImageData) -> None:
    """Raise SignalError unless a network's logits, (B, C), are of the data's classes."""
    if logits is None or logits.ndim != 2:
        told = "gives no logits" if logits is None else f"gives logits of shape {tuple(logits.shape)}"
        raise SignalError(f"{who}: the network {told}; (images, classes) is what is evaluated.")
    if logits.shape[1] != len(data.classes):
        raise SignalError(
            f"{who}: the network tells {logits.shape[1]} classes apart, and {data.name} has {len(data.classes)}."
        )


def split_of(data: ImageData, name: str) -> ImageSplit:
    """A split by its name. Raises SettingError, naming those that are there."""
    splits = {name: getattr(data, attribute) for name, attribute in SPLITS.items()}
    split: ImageSplit | None = splits.get(name)
    if split is None:
        there = ", ".join(name for name, found in splits.items() if found is not None)
        raise SettingError(f"split is '{name}', and {data.name} has none; it has {there}.")
    return split


def with_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 images (B, C, H, W) with another number of channels: grey repeated, or colours brought to their luminance.

    Raises:
        SettingError: there is no such way from C to ``channels``.
    """
    ours = images.shape[1]
    if ours == channels:
        return images
    if ours == 1:
        return images.expand(-1, channels, -1, -1)
    if (ours, channels) != (3, 1):
        raise SettingError(f"images of {ours} channels cannot be given to networks that take {channels}.")
    weights = torch.tensor(_LUMINANCE, device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)


def recoloured(batches: Iterable[Batch], channels: int) -> Iterable[Batch]:
    """The same batches with another number of channels."""
    return _Recoloured(batches, channels)


@dataclass(frozen=True)
class _Recoloured:
    batches: Iterable[Batch]
    channels: int

    def __iter__(self) -> Iterator[Batch]:
        return (replace(batch, inputs=with_channels(batch.inputs, self.channels)) for batch in self.batches)


def normalised_for(data: ImageData, channels: int, like: nn.Module, device: torch.device) -> nn.Module:
    """The preprocessing ``like`` with the statistics of other data, whose images were brought to ``channels``."""
    _, _, size, interpolation, wanted = getattr(like, "settings", (None, None, None, "bilinear", None))
    mean, std = data.mean, data.std
    if len(mean) != channels:
        mean, std = ((sum(each) / len(each),) * channels for each in (mean, std))
    if wanted is not None and wanted != channels:
        mean, std = mean[:1], std[:1]
    return Preprocess(mean, std, size, interpolation, wanted).to(device)

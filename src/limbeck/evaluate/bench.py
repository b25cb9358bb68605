"""The networks and the data that are evaluated: batches, and what was gathered on each split so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from limbeck.data import ImageData, ImageSplit, Preprocess
from limbeck.data.stratify import choose
from limbeck.errors import SettingError, SignalError
from limbeck.evaluate.answers import answer
from limbeck.evaluate.cifar_c import CifarC
from limbeck.evaluate.collect import Gathered, Read, collect
from limbeck.evaluate.embedding_map import LIMIT as MAP_LIMIT
from limbeck.evaluate.transfer import AUTHORS_EPOCHS
from limbeck.feeds import every_sample
from limbeck.networks import Network
from limbeck.signals import Batch, Signals

SPLITS = {"train": "train", "validation": "val", "test": "test"}
# Weights of ITU-R BT.601, as Pillow has them.
_LUMINANCE = (0.299, 0.587, 0.114)


NOISE: Final = "noise"
TEACHER: Final = "teacher"

Figures = dict[str, Any]
"""Fields of an ``Evaluation``."""


@dataclass(frozen=True)
class Options:
    """What is evaluated besides the scores.

    parts: names in ``PARTS``. robustness_limit: so many images at most are corrupted and attacked. cifar_c: folder of images
    that somebody else corrupted, for robustness too. transfer: other data for probes, by the protocol "frozen", "authors" or
    "both", the second for ``transfer_epochs``. other: other data that are out of distribution, or "noise" for as many images
    of uniform noise. map_limit: so many images at most are on the map of embeddings. seed: of what is random in the parts.
    """

    parts: tuple[str, ...] = ()
    robustness_limit: int = 1000
    cifar_c: CifarC | None = None
    transfer: ImageData | None = None
    protocol: Literal["frozen", "authors", "both"] = "frozen"
    transfer_epochs: int = AUTHORS_EPOCHS
    other: ImageData | Literal["noise"] = NOISE
    map_limit: int = MAP_LIMIT
    seed: int = 0


@dataclass(frozen=True)
class Bench:
    """What is evaluated.

    networks: students by their names, and "teacher" where there is one, on ``device`` and in eval mode. data: whose images
    they take. split: "test", "validation" or "train". remarks: what could not be told and why; parts add to it.
    """

    networks: dict[str, Network]
    data: ImageData
    split: str
    device: torch.device
    batch_size: int = 128
    workers: int = 0
    options: Options = field(default_factory=Options)
    remarks: list[str] = field(default_factory=list)
    _gathered: dict[str, dict[str, Gathered]] = field(default_factory=dict, init=False, repr=False)

    @property
    def students(self) -> list[str]:
        """The names of all networks but the teacher."""
        return [who for who in self.networks if who != TEACHER]

    def gathered(self, split: str | None = None) -> dict[str, Gathered]:
        """What each network said about a split; a split is gone through once, however often it is asked for."""
        name = split or self.split
        if name not in self._gathered:
            self._gathered[name] = self.collect(self.batches(split_of(self.data, name)))
        return self._gathered[name]

    def collect(self, batches: Iterable[Batch]) -> dict[str, Gathered]:
        """What each network says about batches like those of the data."""
        return collect({who: self._read(network) for who, network in self.networks.items()}, batches)

    def batches(self, split: ImageSplit) -> Iterable[Batch]:
        """The split in order, without augmentation."""
        return every_sample(self.data, split, self.batch_size, self.device, self.workers)

    def foreign_batches(self, data: ImageData, split: ImageSplit) -> Iterable[Batch]:
        """A split of other data, its images with as many channels as this data's."""
        batches = every_sample(data, split, self.batch_size, self.device, self.workers)
        return recoloured(batches, self.data.in_channels)

    def sample(self, limit: int) -> ImageSplit:
        """At most so many images of the split, the classes in proportion."""
        split = split_of(self.data, self.split)
        return split if limit >= len(split) else split.subset(choose(split.labels, limit, 0))

    def say(self, remark: str) -> None:
        """Note what could not be told."""
        self.remarks.append(remark)

    def _read(self, network: Network) -> Read:
        def read(batch: Batch) -> Signals:
            return answer(network, batch.inputs.to(self.device))

        return read


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

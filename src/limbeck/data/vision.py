"""Labelled images: the types, parts of them, and their digest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.seeds import mix
from limbeck.data.sources import Recipe
from limbeck.data.stratify import choose
from limbeck.errors import DataError, SettingError


@dataclass(frozen=True)
class ImageSplit:
    """N labelled images.

    images: uint8 (N, C, H, W) in memory, or the paths of N files that are decoded when they are needed.
    labels: (N,) int64 classes.
    index: (N,) int64 position in the source's own split; it stays the same in every subset.

    Raises DataError when the lengths, shapes or dtypes do not fit.
    """

    images: Tensor | list[str]
    labels: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and (self.images.dtype != torch.uint8 or self.images.ndim != 4):
            raise DataError(f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}.")
        for name, value in (("labels", self.labels), ("index", self.index)):
            if value.dtype != torch.int64 or value.shape != (len(self.images),):
                shape = tuple(value.shape)
                raise DataError(f"{name} must be int64 ({len(self.images)},), one an image; got {value.dtype} {shape}.")

    def __len__(self) -> int:
        return len(self.labels)

    def labels_by_index(self) -> Tensor:
        """(n,) int64: the label of each index, -1 where no sample has that index."""
        labels = torch.full((int(self.index.max()) + 1,), -1)
        labels[self.index] = self.labels
        return labels

    def subset(self, positions: Tensor) -> ImageSplit:
        """The samples at ``positions``, (M,) int64, in that order."""
        if isinstance(self.images, Tensor):
            images: Tensor | list[str] = self.images[positions]
        else:
            images = [self.images[position] for position in positions.tolist()]
        return ImageSplit(images, self.labels[positions], self.index[positions])


@dataclass(frozen=True)
class ImageData:
    """A data set of labelled images.

    train, val, test: the splits; val and test may be None. classes: a name for each label.
    in_channels, image_size: of every image as the loaders give it. mean, std: one a channel, of pixels in [0, 1].
    recipe: how the data set is usually trained on. damage: what was done to train to make it harder, in words.
    """

    name: str
    train: ImageSplit
    val: ImageSplit | None
    test: ImageSplit | None
    classes: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe = field(default_factory=Recipe)
    damage: tuple[str, ...] = ()
    _fingerprint: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def resident(self) -> bool:
        """Whether the pixels are in memory; otherwise the splits hold paths."""
        return isinstance(self.train.images, Tensor)

    def limited(self, count: int) -> ImageData:
        """With at most so many training images, those that ``load_data`` chooses for a ``train_limit``.

        Raises SettingError for fewer than the classes.
        """
        return replace(self, train=at_most(self.train, len(self.classes), count, 0))

    def fingerprint(self) -> str:
        """32 hexadecimal digits over classes, labels, index and pixels.

        For files, their names below their common folder and their sizes stand for the pixels. The same data gives the
        same digits on every machine; another subset or another image size gives others.
        """
        if not self._fingerprint:
            self._fingerprint.append(_fingerprint(self))
        return self._fingerprint[0]


def at_most(train: ImageSplit, classes: int, limit: int | None, split_seed: int) -> ImageSplit:
    """At most so many training images, classes in proportion, each with one at least; None for all.

    Raises SettingError for fewer than the classes.
    """
    if limit is not None and limit < classes:
        raise SettingError(
            f"train_limit must be at least {classes}, one image a class; got {limit} (a teacher_budget is a train_limit too)."
        )
    return limited(train, limit, mix(split_seed, 1), low=1)


def limited(split: ImageSplit, limit: int | None, seed: int, low: int) -> ImageSplit:
    """At most so many images of a split, classes in proportion, of each at least ``low``; None for all."""
    if limit is None or limit >= len(split):
        return split
    return split.subset(choose(split.labels, limit, seed, low=low))


def _fingerprint(data: ImageData) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((data.classes, data.image_size)).encode())
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    paths = [path for split in splits if not isinstance(split.images, Tensor) for path in split.images]
    root = os.path.commonpath(paths) if paths else ""
    for part, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        digest.update(f"{part} {0 if split is None else len(split)}".encode())
        if split is not None:
            digest.update(split.labels.cpu().numpy().tobytes() + split.index.cpu().numpy().tobytes())
            _digest_images(digest, split, root)
    return digest.hexdigest()


def _digest_images(digest: hashlib.blake2b, split: ImageSplit, root: str) -> None:
    if isinstance(split.images, Tensor):
        for part in torch.split(split.images, 4096):
            digest.update(part.cpu().contiguous().numpy().data)
        return
    for path in split.images:
        relative = Path(path).relative_to(root).as_posix()
        digest.update(f"{relative}\0{Path(path).stat().st_size}\0".encode())

"""``load_data``: labelled images from one setting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.damage import check_damage, long_tail, wrong_labels
from limbeck.data.images import decode, header_size, read_each, resize_all
from limbeck.data.seeds import mix
from limbeck.data.sources import RawData, RawSplit, Request, default_data_dir, find_source
from limbeck.data.stratify import choose
from limbeck.data.vision import ImageData, ImageSplit, at_most, limited
from limbeck.errors import DataError, SettingError, check_number

_RESIDENT_BYTES = 2 * 10**9
_RESIDENT_SIDE = 64
_DEFAULT_SIZE = (224, 224)
_STATISTICS_SAMPLE = 1024


def load_data(
    spec: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
    label_noise: float = 0.0,
    imbalance: float = 1.0,
    image_size: int | tuple[int, int] | None = None,
    download: bool = True,
    skip_unreadable: bool = False,
) -> ImageData:
    """Load a data set of labelled images.

    spec: a known name (``list_sources``), an image folder, ``PATH.npz`` or ``hf:NAME``.
    data_dir: where known data sets lie or are downloaded to; None for ``$LIMBECK_DATA`` or ``~/.cache/limbeck``.
    val_fraction: in [0, 1), the part of train that becomes val where the source has none, classes in proportion, the
        same for the same ``split_seed``; 0 for no val. A source's own val stays as it is.
    train_limit, test_limit: at most so many images, classes in proportion. train_limit counts what is left for training
        after val was taken, and of a long tail keeps the proportions.
    label_noise: in [0, 1), the share of training labels that are replaced, each by one of the other classes, drawn
        uniformly; classes in proportion. Done last.
    imbalance: at least 1; class c of C keeps n · imbalance^(-c / (C - 1)) training images, at least one. n is the most that
        the classes have images for. Both leave val and test as they are, and are the same for the same ``split_seed``.
    image_size: side or (H, W) that images are brought to; None for their own size, or 224 where files differ in size.
    download: whether a missing data set may be fetched.
    skip_unreadable: log damaged image files and go on without them instead of raising.

    Image files become resident when they share a size, or a size is asked for, of at most 64 pixels a side and all fit
    in 2 GB; otherwise they stay as paths. ``mean`` and ``std`` are the published constants of the source, or computed
    on its whole train split, before val and limits (up to 1,024 images of it where they stay as paths), so that
    networks trained on different parts normalise alike.

    Raises SettingError for a setting out of range or an unknown name, DataError for data that is missing, damaged or
    has fewer than two classes, an empty class in train, or labels out of range.
    """
    size = _check_settings(val_fraction, train_limit, test_limit, image_size)
    check_damage(label_noise, imbalance)
    entry, argument = find_source(os.fspath(spec))
    folder = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    raw = entry.load(Request(argument, folder, download))
    named = {part: split for part, split in (("train", raw.train), ("val", raw.val), ("test", raw.test)) if split}
    for part, split in named.items():
        _check_labels(raw, part, split)
    splits, size = _settle(raw.name, named, size, skip_unreadable)
    _check_every_class(raw, splits["train"])
    mean, std = (entry.mean, entry.std) if entry.mean and entry.std else _statistics(splits["train"], size)
    train, val = _divide(raw, splits, val_fraction, split_seed)
    train = _in_part(raw, train, imbalance, train_limit, split_seed)
    test = splits.get("test")
    test = None if test is None else limited(test, test_limit, mix(split_seed, 2), low=0)
    labels = wrong_labels(train.labels, len(raw.classes), label_noise, mix(split_seed, 4))
    damage = _in_words(train.labels, labels, label_noise, imbalance)
    train = replace(train, labels=labels)
    return ImageData(raw.name, train, val, test, raw.classes, len(mean), size, mean, std, entry.recipe, damage)


def _check_settings(
    val_fraction: float, train_limit: int | None, test_limit: int | None, image_size: int | tuple[int, int] | None
) -> tuple[int, int] | None:
    check_number("val_fraction", val_fraction, low=0)
    if val_fraction >= 1:
        raise SettingError(f"val_fraction must be less than 1, got {val_fraction!r}.")
    for name, limit in (("train_limit", train_limit), ("test_limit", test_limit)):
        if limit is not None and (type(limit) is not int or limit < 1):
            raise SettingError(f"{name} must be a whole number of at least 1, or None for all images; got {limit!r}.")
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise SettingError(f"image_size must be a side in pixels or (height, width), got {image_size!r}.")
    return size[0], size[1]


def _check_labels(raw: RawData, part: str, split: RawSplit) -> None:
    labels, where = split.labels, f"{raw.name} {part}"
    if labels.dtype == torch.bool or labels.dtype.is_floating_point or labels.ndim != 1:
        raise DataError(f"{where}: labels must be integers, one an image; got {labels.dtype} {tuple(labels.shape)}.")
    if len(labels) != len(split.images):
        raise DataError(f"{where} has {len(split.images)} images but {len(labels)} labels.")
    if len(labels) == 0:
        raise DataError(f"{where} has no images.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(raw.classes):
        accepted = f"0 to {len(raw.classes) - 1} ({len(raw.classes)} classes)"
        raise DataError(f"{where}: labels must be in {accepted}, got {low if low < 0 else high}.")


def _check_every_class(raw: RawData, train: ImageSplit) -> None:
    if len(raw.classes) < 2:
        raise DataError(f"{raw.name} has one class only, '{raw.classes[0]}'; a classifier needs at least two.")
    counts = torch.bincount(train.labels, minlength=len(raw.classes))
    empty = [raw.classes[number] for number in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        named = ", ".join(f"'{name}'" for name in empty[:10]) + (f" and {len(empty) - 10} more" if empty[10:] else "")
        raise DataError(f"{raw.name}: these classes have no training image: {named}.")


def _settle(
    name: str, named: dict[str, RawSplit], size: tuple[int, int] | None, skip_unreadable: bool
) -> tuple[dict[str, ImageSplit], tuple[int, int]]:
    """Images of one size in memory where they fit, paths of readable files elsewhere."""
    splits = {part: _as_split(raw) for part, raw in named.items()}
    tensors = {part: split.images for part, split in splits.items() if isinstance(split.images, Tensor)}
    if len(tensors) == len(splits):
        return _settle_tensors(name, splits, tensors, size)
    return _settle_files(name, splits, size, skip_unreadable)


def _as_split(raw: RawSplit) -> ImageSplit:
    return ImageSplit(raw.images, raw.labels.long(), torch.arange(len(raw.labels)) if raw.index is None else raw.index)


def _settle_tensors(
    name: str, splits: dict[str, ImageSplit], tensors: dict[str, Tensor], size: tuple[int, int] | None
) -> tuple[dict[str, ImageSplit], tuple[int, int]]:
    shapes = {part: tuple(images.shape[1:]) for part, images in tensors.items()}
    for part, shape in shapes.items():
        if shape != shapes["train"]:
            raise DataError(f"{name}: images of {part} are {shape}, those of train {shapes['train']} (C, H, W).")
    own = (shapes["train"][1], shapes["train"][2])
    if size is None or size == own:
        return splits, own
    return {part: replace(split, images=resize_all(tensors[part], size)) for part, split in splits.items()}, size


def _settle_files(
    name: str, splits: dict[str, ImageSplit], size: tuple[int, int] | None, skip_unreadable: bool
) -> tuple[dict[str, ImageSplit], tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for part, split in splits.items():
        sizes, kept = read_each(_paths(split), header_size, f"{name} {part}", skip_unreadable)
        found.update(sizes)
        splits[part] = _keep(split, kept, f"{name} {part}")
    size = size or (found.pop() if len(found) == 1 else _DEFAULT_SIZE)
    estimate = 3 * size[0] * size[1] * sum(len(split) for split in splits.values())
    if max(size) > _RESIDENT_SIDE or estimate > _RESIDENT_BYTES:
        return splits, size
    for part, split in splits.items():
        pixels, kept = read_each(_paths(split), _Decode(size), f"{name} {part}", skip_unreadable)
        splits[part] = replace(_keep(split, kept, f"{name} {part}"), images=torch.stack(pixels))
    return splits, size


@dataclass(frozen=True)
class _Decode:
    size: tuple[int, int]

    def __call__(self, path: str) -> Tensor:
        return decode(path, self.size)


def _paths(split: ImageSplit) -> list[str]:
    assert not isinstance(split.images, Tensor)
    return split.images


def _keep(split: ImageSplit, kept: Sequence[int], where: str) -> ImageSplit:
    if not kept:
        raise DataError(f"{where} has no image that can be read.")
    return split if len(kept) == len(split) else split.subset(torch.tensor(kept, dtype=torch.int64))


def _statistics(train: ImageSplit, size: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel in [0, 1] units, exact from the counts of the 256 values."""
    images = train.images
    if not isinstance(images, Tensor):
        chosen = torch.linspace(0, len(images) - 1, min(len(images), _STATISTICS_SAMPLE)).round().long().tolist()
        images = torch.stack([decode(images[position], size) for position in chosen])
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        weight = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        mean = (weight @ values / weight.sum()).item()
        variance = (weight @ (values - mean).square() / weight.sum()).item()
        means.append(mean)
        stds.append(variance**0.5 or 1.0)  # a constant channel is shifted to zero, not divided by zero
    return tuple(means), tuple(stds)


def _divide(
    raw: RawData, splits: dict[str, ImageSplit], val_fraction: float, split_seed: int
) -> tuple[ImageSplit, ImageSplit | None]:
    train, val = splits["train"], splits.get("val")
    if val is not None or val_fraction == 0:
        return train, val
    count = round(val_fraction * len(train))
    if count < 1 or len(train) == len(raw.classes):
        raise SettingError(
            f"val_fraction={val_fraction} of the {len(train)} training images of {raw.name} leaves no image for "
            "val; give a larger one, or 0 for no val."
        )
    chosen = choose(train.labels, count, mix(split_seed, 0), keep=1)
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[chosen] = False
    return train.subset(rest.nonzero().flatten()), train.subset(chosen)


def _in_part(raw: RawData, train: ImageSplit, imbalance: float, limit: int | None, split_seed: int) -> ImageSplit:
    if imbalance > 1:
        train = train.subset(long_tail(train.labels, len(raw.classes), imbalance, mix(split_seed, 3)))
    return at_most(train, len(raw.classes), limit, split_seed)


def _in_words(true: Tensor, given: Tensor, label_noise: float, imbalance: float) -> tuple[str, ...]:
    sizes, wrong = torch.bincount(true), (true != given).double().mean().item()
    tail = f"training classes from {int(sizes.max()):,} to {int(sizes.min()):,} images"
    noise = f"{100 * wrong:.3g} % of the training labels are wrong"
    return (tail,) * (imbalance > 1) + (noise,) * (label_noise > 0)

"""The three streams of batches of a run: training, validation, test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from limbeck.config import DataSettings, RunSettings
from limbeck.data import (
    FileBatches,
    ImageData,
    ImageSplit,
    LoaderBatches,
    ResidentBatches,
    eval_batches,
    load_data,
    parse_view_sets,
)
from limbeck.data.stratify import choose
from limbeck.data.views import Views
from limbeck.distributed import rank, world_size
from limbeck.errors import DataError, SettingError
from limbeck.modalities import Images, Modality
from limbeck.signals import Batch, Batches
from limbeck.teachers.cache import SlotBatches

EvalBatches = Callable[[], Iterable[Batch]]

_TEACHER_CHECK_IMAGES = 2000
_AREAS = (0.08, 1.0)  # of RandomResizedCrop, as on ImageNet


@dataclass(frozen=True)
class Feeds:
    """Batches for a run, and what is known of the data.

    validation, test: make the batches of the split anew; None when there is none.
    check: a split on which a teacher is scored before the first step: validation, else some training samples.
    modality: what kind of data it is. classes: their names; None where they are not known. data: the images' facts; None for
    other data, and for a user's own loader, whose inputs go to the networks as they are.
    """

    name: str
    train: Batches
    validation: EvalBatches | None
    test: EvalBatches | None
    check: EvalBatches
    modality: Modality
    classes: tuple[str, ...] | None = None
    data: ImageData | None = None


def read_data(settings: DataSettings) -> ImageData:
    """The data set that the settings name."""
    return load_data(
        settings.data,
        data_dir=settings.data_dir,
        val_fraction=settings.val_fraction,
        train_limit=settings.train_limit,
        test_limit=settings.test_limit,
        label_noise=settings.label_noise or 0.0,
        imbalance=settings.imbalance or 1.0,
        image_size=settings.image_size,
        download=settings.download,
        skip_unreadable=settings.skip_unreadable,
    )


_FOR_TEXT = (
    "tokenizer",
    "too_long",
    "chat",
    "columns",
    "separator",
    "packing",
    "token_budget",
    "student_lora",
    "back_translation",
)


def check_image_settings(settings: RunSettings) -> None:
    """Raise SettingError for a setting that is for text alone."""
    for name in _FOR_TEXT:
        if getattr(settings, name):
            raise SettingError(
                f"{name} is for text, and {settings.data} is not; a file is text by its name, else write text:…"
            )
    check_no_search(settings)
    if getattr(settings, "mixed_targets", False):
        raise SettingError(f"mixed_targets is a control of mixup of text, and {settings.data} is no text.")
    check_no_writing(settings)


def check_no_writing(settings: RunSettings) -> None:
    """Raise SettingError for a setting that is for models that write."""
    for name, usual in (("policy", "fixed"), ("text_engine", "own")):
        if getattr(settings, name, usual) != usual:
            raise SettingError(f"{name} is for models that write, and with {settings.data} none does.")


def check_no_search(settings: RunSettings) -> None:
    """Raise SettingError for a setting that is for search alone."""
    for name, usual in (("embed_chunk", None), ("extra_queries", None), ("documents", "own")):
        if getattr(settings, name, usual) != usual:
            raise SettingError(f"{name} is for search, and {settings.data} is none.")


def image_feeds(data: ImageData, settings: RunSettings, device: torch.device) -> Feeds:
    """Feeds from a data set of images: resident ones augmented in batch on the device, files decoded by workers."""
    if not data.damage:
        _refuse_damage(settings, "give them to load_data, or give the data by name")
    views = parse_view_sets(data.recipe.augment if settings.augment == "auto" else settings.augment)
    if settings.batch_size > len(data.train):
        raise SettingError(
            f"batch_size is {settings.batch_size}, and {data.name} has {len(data.train)} training images."
        )
    validation = _in_order(data, data.val, settings, device)
    return Feeds(
        name=data.name,
        train=_training(data, views, settings, device),
        validation=validation,
        test=_in_order(data, data.test, settings, device),
        check=validation or _all_of(data, _sample_of(data.train), settings, device),
        modality=Images(data, " | ".join(_described(each, data.resident) for each in views)),
        classes=data.classes,
        data=data,
    )


def _refuse_damage(settings: RunSettings, instead: str) -> None:
    # They are done to the data as it is loaded; a setting that nothing follows from would tell a lie in config.yaml.
    if settings.label_noise or (settings.imbalance or 1) > 1:
        raise SettingError(f"label_noise and imbalance do nothing to data that is loaded already; {instead}.")


def _sample_of(split: ImageSplit) -> ImageSplit:
    return split.subset(choose(split.labels, min(len(split), _TEACHER_CHECK_IMAGES), seed=0))


def _described(views: Views, resident: bool) -> str:
    if resident or views == Views():
        return str(views)
    return ", ".join(["resized crop", *str(views).split(",")])


def _training(data: ImageData, views: Sequence[Views], settings: RunSettings, device: torch.device) -> Batches:
    if data.resident:
        return ResidentBatches(
            data.train,
            views,
            settings.batch_size,
            settings.data_seed,
            device=device,
            rank=rank(),
            world_size=world_size(),
            cycle=settings.views,
        )
    if len(views) > 1:
        raise SettingError(
            f"augment: several views of a sample at once are for images held in memory; {data.name} is read from files."
        )
    return _from_files(data, views[0], settings, device)


def _from_files(data: ImageData, views: Views, settings: RunSettings, device: torch.device) -> Batches:
    if views.crop or views.cutout or views.mixes:
        raise SettingError(
            f"augment: crop, cutout, mixup and cutmix are for images held in memory; {data.name} is read from files, cut by "
            "RandomResizedCrop. Give 'flip', 'randaugment=N', both or 'none'."
        )
    return FileBatches(
        data.train,
        data.image_size,
        settings.batch_size,
        settings.data_seed,
        flip=views.flip,
        scale=None if views == Views() else _AREAS,
        randaugment=views.randaugment,
        workers=settings.workers,
        device=device,
        rank=rank(),
        world_size=world_size(),
        cycle=settings.views,
    )


def unchanged_batches(data: ImageData, split: ImageSplit, settings: RunSettings, device: torch.device) -> SlotBatches:
    """The samples of a split without augmentation, to be kept in a teacher cache: each has one slot, view 0."""
    size = min(settings.batch_size, len(split))
    if data.resident:
        return ResidentBatches(split, Views(), size, 0, device=device, drop_last=False)
    workers = settings.workers
    return FileBatches(
        split, data.image_size, size, 0, flip=False, scale=None, workers=workers, device=device, drop_last=False
    )


def every_sample(
    data: ImageData,
    split: ImageSplit,
    batch_size: int,
    device: torch.device,
    workers: int,
    *,
    part: int = 0,
    parts: int = 1,
) -> Iterable[Batch]:
    """A split in order without augmentation; can be walked again. All of it, or one of so many contiguous parts."""
    size, processes = (None, 0) if data.resident else (data.image_size, workers)
    return eval_batches(split, batch_size, device, part, parts, image_size=size, workers=processes)


def _in_order(
    data: ImageData, split: ImageSplit | None, settings: RunSettings, device: torch.device
) -> EvalBatches | None:
    return None if split is None else _all_of(data, split, settings, device)


def _all_of(data: ImageData, split: ImageSplit, settings: RunSettings, device: torch.device) -> EvalBatches:
    size, workers = settings.batch_size, settings.workers
    return lambda: every_sample(data, split, size, device, workers, part=rank(), parts=world_size())


def loader_feeds(
    train: DataLoader[Any],
    validation: DataLoader[Any] | None,
    test: DataLoader[Any] | None,
    settings: RunSettings,
    device: torch.device,
) -> Feeds:
    """Feeds from a user's own loaders; the inputs go to both networks as they are.

    Raises DataError when the training loader has no batch.
    """
    if settings.views is not None:
        raise SettingError("views: the views of your own loader are its own; give the data by name, or as ImageData.")
    _refuse_damage(settings, "give the data by name instead of a loader of your own")
    # Left on the CPU, where the loop looks at the labels before it moves the batch.
    batches = LoaderBatches(train, seed=settings.data_seed, world_size=world_size())
    if len(batches) == 0:
        raise DataError(
            "the training loader has no batch: its data is empty, or smaller than its batch_size while drop_last is on."
        )
    return Feeds(
        name="loader",
        train=batches,
        validation=_of_loader(validation, settings, device),
        test=_of_loader(test, settings, device),
        check=_of_loader(validation, settings, device) or Few(batches, _TEACHER_CHECK_IMAGES),
        modality=Images(None),
    )


def _of_loader(loader: DataLoader[Any] | None, settings: RunSettings, device: torch.device) -> EvalBatches | None:
    if loader is None:
        return None
    batches = LoaderBatches(loader, seed=settings.seed, device=device)
    return lambda: batches.epoch(0)


@dataclass(frozen=True)
class Few:
    """The first batches of an epoch, about so many samples of them; can be walked again."""

    batches: Batches
    samples: int

    def __call__(self) -> Iterator[Batch]:
        return islice(self.batches.epoch(0), max(1, self.samples // max(1, self.batches.batch_size)))

"""Batches of images that are files, decoded in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from limbeck.data.images import fit, read_rgb, to_tensor
from limbeck.data.plan import Plan, Seen
from limbeck.data.seeds import stream
from limbeck.data.slots import Slots
from limbeck.data.vision import ImageSplit
from limbeck.errors import SettingError
from limbeck.signals import Batch

_VIEW_IDS = 2**62
CROP_RATIO = 0.875


class FileBatches:
    """Training batches of a split whose images are files, decoded to RGB in worker processes.

    split: with paths. image_size: (H, W) of the pixels. batch_size, rank, world_size, drop_last, cycle: as in
    ResidentBatches.
    flip: whether images are mirrored at random. scale: the area that RandomResizedCrop cuts, as parts of the image; None
    cuts the centre, as ``eval_batches`` does. With neither flip nor randaugment that is the only view, and its id is 0.
    randaugment: operations of torchvision's RandAugment, 0 for none. workers: processes that decode, 0 for this one.

    torchvision's transforms draw from a generator that the view id seeds, so that the same id makes the same pixels.
    Batches are as those of ResidentBatches.

    Raises SettingError where the settings do not fit, and DataError on a damaged file.
    """

    def __init__(
        self,
        split: ImageSplit,
        image_size: tuple[int, int],
        batch_size: int,
        seed: int,
        *,
        flip: bool = True,
        scale: tuple[float, float] | None = (0.08, 1.0),
        randaugment: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
    ) -> None:
        self._plan = Plan(len(split), batch_size, seed, rank, world_size, drop_last)
        self.batch_size, self._device = batch_size, torch.device(device)
        self._sampler = _EpochSampler()
        files = _Files(split, _RandomTransform(image_size, flip, scale, randaugment))
        self._loader = _file_loader(files, self._sampler, workers, self._device)
        count = _VIEW_IDS if flip or randaugment or scale is not None else 1
        words = ["centre" if scale is None else f"resized crop of {scale[0]}-{scale[1]}", *["flip"] * flip]
        words += [f"randaugment={randaugment}"] * (randaugment > 0) + [f"at {image_size[0]}×{image_size[1]}"]
        self._seen = Seen(len(split), [count], cycle, ", ".join(words))

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """See ``Batches.epoch``. One epoch at a time: starting another ends this one."""
        order = self._plan.order(number)
        (ids,) = self._seen.ids(number, order, self._plan.ids(number))
        parts = [self._plan.part(position) for position in self._plan.positions(start)]
        return self._load([(order[part], ids[part]) for part in parts])

    @property
    def slots(self) -> Slots:
        """See ``ResidentBatches.slots``."""
        return self._seen.slots

    def at(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """See ``ResidentBatches.at``. Ends an epoch that is under way."""
        return self._load([(positions, self.slots.views_of(positions, slots)) for positions, slots in parts])

    def _load(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        self._sampler.batches = [list(zip(rows.tolist(), ids.tolist(), strict=True)) for rows, ids in parts]
        return (Batch(*values).to(self._device) for values in self._loader)


class _EpochSampler:
    """The (position, view id) pairs of each batch; set before an epoch, so that workers live on between epochs."""

    def __init__(self) -> None:
        self.batches: Sequence[list[tuple[int, int]]] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Files(Dataset[tuple[Tensor, int, int, int]]):
    def __init__(self, split: ImageSplit, transform: Callable[[Any, int], Tensor]) -> None:
        self.paths, self.transform = _paths(split), transform
        self.labels, self.index = split.labels, split.index

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int, int]:
        position, view = key
        pixels = self.transform(read_rgb(self.paths[position]), view)
        return pixels, int(self.labels[position]), int(self.index[position]), view


def _paths(split: ImageSplit) -> list[str]:
    if isinstance(split.images, Tensor):
        raise SettingError("this split holds its pixels in memory, not paths; use ResidentBatches for it.")
    return split.images


def _outlive_signals(worker: int) -> None:
    # A terminal sends Ctrl-C, and a job scheduler SIGTERM, to every process of the run; the run itself decides when its
    # workers end. A second SIGTERM is its own, to one that does not leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _outlive_one)


def _outlive_one(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def _file_loader(files: _Files, batches: Iterable[Any], workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        files,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals,
        pin_memory=device.type == "cuda",
        generator=stream(0),  # without one, DataLoader draws its workers' seeds from torch's global generator
    )


class _RandomTransform:
    def __init__(self, size: tuple[int, int], flip: bool, scale: tuple[float, float] | None, randaugment: int) -> None:
        from torchvision.transforms import v2

        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise SettingError(f"scale must be two parts of the image with 0 < low <= high <= 1, got {scale!r}.")
        centre = partial(fit, size=size, crop_ratio=CROP_RATIO)
        steps: list[Any] = [centre if scale is None else v2.RandomResizedCrop(size, scale=scale, antialias=True)]
        steps += [v2.RandomHorizontalFlip()] * flip
        steps += [v2.RandAugment(randaugment)] * (randaugment > 0)
        self.steps = v2.Compose(steps)

    def __call__(self, image: Any, view: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(view)  # torch.manual_seed would seed the accelerators too
            return to_tensor(self.steps(image))


class _CentreTransform:
    def __init__(self, size: tuple[int, int], crop_ratio: float) -> None:
        self.size, self.crop_ratio = size, crop_ratio

    def __call__(self, image: Any, view: int) -> Tensor:
        return to_tensor(fit(image, self.size, self.crop_ratio))


class FileEval:
    """The images of ``parts`` in order and without augmentation; the numbers of ``parts`` are positions in the split."""

    def __init__(
        self,
        split: ImageSplit,
        parts: list[range],
        device: torch.device,
        image_size: tuple[int, int],
        crop_ratio: float,
        workers: int,
    ) -> None:
        transform = _CentreTransform(image_size, crop_ratio)
        self._device, self._batches = device, [[(position, 0) for position in part] for part in parts]
        self._loader = _file_loader(_Files(split, transform), self._batches, workers, device)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return (Batch(*values).to(self._device) for values in self._loader)

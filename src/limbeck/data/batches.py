"""Loaders: what an epoch's batches are depends only on the seed and the number of the epoch.

So a run resumes from (epoch, position) and needs no random state; torch's global generator is never moved.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from limbeck.data.images import fit, read_rgb, to_tensor
from limbeck.data.seeds import stream
from limbeck.data.views import Slots, Views, all_views, fixed_views
from limbeck.data.vision import ImageSplit
from limbeck.errors import SettingError
from limbeck.signals import Batch

Device = torch.device | str
_VIEW_IDS = 2**62
_CROP_RATIO = 0.875


@dataclass(frozen=True)
class _Plan:
    """Which samples make which batch, and which of them are this process's.

    Each process gets one contiguous part of every global batch. A last batch that is not full is dropped with
    ``drop_last``; without, it keeps a multiple of ``world_size`` samples, so that all processes have equally many.
    """

    samples: int
    batch_size: int
    seed: int
    rank: int
    world_size: int
    drop_last: bool

    def __post_init__(self) -> None:
        _check_share(self.batch_size, self.rank, self.world_size)
        if self.batch_size % self.world_size:
            raise SettingError(
                f"batch_size must be divisible by the number of processes ({self.world_size}), got {self.batch_size}."
            )
        if len(self) == 0:
            raise SettingError(
                f"batch_size={self.batch_size} is larger than the {self.samples} training images, so that an epoch "
                f"would have no batch; give at most {self.samples}, or drop_last=False."
            )

    def __len__(self) -> int:
        rest = self.samples % self.batch_size
        return self.samples // self.batch_size + (not self.drop_last and rest >= self.world_size)

    def order(self, epoch: int) -> Tensor:
        """Positions (N,) int64 in the order of an epoch."""
        return torch.randperm(self.samples, generator=stream(self.seed, epoch, 0))

    def ids(self, epoch: int) -> torch.Generator:
        """The generator of an epoch's view ids."""
        return stream(self.seed, epoch, 1)

    def part(self, position: int) -> slice:
        """This process's part of the global batch at ``position``, as a slice of the epoch's order."""
        begin = position * self.batch_size
        share = min(self.batch_size, self.samples - begin) // self.world_size
        return slice(begin + self.rank * share, begin + (self.rank + 1) * share)

    def positions(self, start: int) -> range:
        """Batch numbers from ``start`` on. Raises SettingError when it is outside the epoch."""
        if not 0 <= start <= len(self):
            raise SettingError(f"start must be 0 to {len(self)}, the batches of an epoch; got {start}.")
        return range(start, len(self))


def _check_share(batch_size: int, rank: int, world_size: int) -> None:
    if type(batch_size) is not int or batch_size < 1:
        raise SettingError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
    if world_size < 1 or not 0 <= rank < world_size:
        raise SettingError(f"rank must be 0 to world_size - 1, got rank={rank}, world_size={world_size}.")


class _Seen:
    """Which views of its samples an epoch shows, one of each set: drawn anew, or the next of ``cycle`` fixed ones."""

    def __init__(self, samples: int, counts: Sequence[int], cycle: int | None, text: str) -> None:
        self.counts, self._cycle, self._text = counts, cycle, text
        self.firsts = list(accumulate(counts[:-1], initial=0))
        self._fixed: list[Tensor] = []
        if cycle is not None:
            self._fixed = [fixed_views(samples, count, cycle, number) for number, count in enumerate(counts)]

    def ids(self, epoch: int, order: Tensor, generator: torch.Generator) -> list[Tensor]:
        """For each set, ids (N,) int64 of the views of the samples in ``order``."""
        if self._cycle is None:
            return [torch.randint(count, (len(order),), generator=generator) for count in self.counts]
        return [fixed[order, epoch % fixed.shape[1]] for fixed in self._fixed]

    @cached_property
    def slots(self) -> Slots:
        """All views that a sample is ever seen in; the ids of a set go on where those of the one before it end."""
        if self._cycle is None:
            return all_views(self.counts, self._text)
        ids = torch.cat([fixed + first for fixed, first in zip(self._fixed, self.firsts, strict=True)], 1)
        return Slots(ids, f"{self._text}, {self._cycle} fixed views of each sample")

    def set_of(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """For ids that go on from set to set: the number of the set, and the id in it."""
        firsts = torch.tensor(self.firsts)
        number = torch.searchsorted(firsts, views, right=True) - 1
        return number, views - firsts[number]


def _resident(split: ImageSplit) -> Tensor:
    if not isinstance(split.images, Tensor):
        raise SettingError("this split holds paths of image files, not pixels; use FileBatches for it.")
    return split.images


def _paths(split: ImageSplit) -> list[str]:
    if isinstance(split.images, Tensor):
        raise SettingError("this split holds its pixels in memory, not paths; use ResidentBatches for it.")
    return split.images


class ResidentBatches:
    """Training batches of a split whose pixels lie on the device; nothing waits for the host.

    split: with images in memory. views: the augmentations; each sample's view is drawn anew every epoch. With several,
    each sample is in a batch in one view of each, and the ids of the second go on where those of the first end.
    batch_size: global, a multiple of ``world_size``; process ``rank`` gets its contiguous part of each global batch.
    drop_last: whether the last batch is left out when it is not full; without, an epoch sees every sample but the last
    ``len(split) % world_size``, so that all processes have equally many.
    cycle: with a number K, sample i is seen in epoch e in the (e mod K)-th of K views of its own, which are the same for
    every seed; in all of them in turn where the views are fewer than K. None draws its view anew every epoch.

    Batches have inputs uint8 (B, C, H, W), labels, index and view. Raises SettingError where the settings do not fit.
    """

    def __init__(
        self,
        split: ImageSplit,
        views: Views | Sequence[Views],
        batch_size: int,
        seed: int,
        device: Device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
    ) -> None:
        images = _resident(split)
        self._plan = _Plan(len(split), batch_size, seed, rank, world_size, drop_last)
        sets = [views] if isinstance(views, Views) else views
        self.views = [each.with_size(images.shape[2], images.shape[3]).with_pool(len(split)) for each in sets]
        text = f"{' | '.join(map(str, self.views))} at {images.shape[2]}×{images.shape[3]}"
        self._seen = _Seen(len(split), [each.count for each in self.views], cycle, text)
        self._mixed = tuple(each.mixes for each in self.views) if any(each.mixes for each in self.views) else ()
        self.batch_size = batch_size
        self._images, self._labels, self._index = (part.to(device) for part in (images, split.labels, split.index))

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """See ``Batches.epoch``."""
        positions = self._plan.positions(start)
        order = self._plan.order(number)
        rows = _move(order, self._images.device)
        ids = [_move(each, self._images.device) for each in self._seen.ids(number, order, self._plan.ids(number))]
        return (self._batch(rows[part], [each[part] for each in ids]) for part in map(self._plan.part, positions))

    @property
    def slots(self) -> Slots:
        """The views of the samples by slots. Raises SettingError when they are too many to be listed, without ``cycle``."""
        return self._seen.slots

    def at(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Batches of chosen samples in chosen views, to compute what is kept of each: no part of an epoch.

        parts: (positions, slots) of each batch, both int64 (B,) on the CPU; positions in the split, slots as in ``slots``.
        """
        return (self._of_slots(positions, self.slots.views_of(positions, slots)) for positions, slots in parts)

    def _of_slots(self, positions: Tensor, view: Tensor) -> Batch:
        numbers, ids = self._seen.set_of(view)
        rows, ids = positions.to(self._images.device), ids.to(self._images.device)
        images = self._images.index_select(0, rows)
        inputs = torch.empty_like(images)
        for number, views in enumerate(self.views):
            chosen = (numbers == number).nonzero().flatten().to(rows.device)
            if len(chosen):
                inputs[chosen] = views.apply(images[chosen], ids[chosen], self._images)
        labels, index = self._labels.index_select(0, rows), self._index.index_select(0, rows)
        return Batch(inputs, labels, index, view.to(rows.device))

    def _batch(self, rows: Tensor, ids: Sequence[Tensor]) -> Batch:
        images, copies = self._images.index_select(0, rows), len(self.views)
        if copies == 1:
            labels, index = self._labels.index_select(0, rows), self._index.index_select(0, rows)
            return Batch(self.views[0].apply(images, ids[0], self._images), labels, index, ids[0], mixed=self._mixed)
        inputs = [views.apply(images, each, self._images) for views, each in zip(self.views, ids, strict=True)]
        return Batch(
            inputs=torch.cat(inputs),
            labels=self._labels.index_select(0, rows).repeat(copies),
            index=self._index.index_select(0, rows).repeat(copies),
            view=torch.cat([each + first for each, first in zip(ids, self._seen.firsts, strict=True)]),
            copies=copies,
            mixed=self._mixed,
        )


def _move(values: Tensor, device: torch.device) -> Tensor:
    # Only pinned memory is copied without waiting.
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


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
        device: Device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
    ) -> None:
        self._plan = _Plan(len(split), batch_size, seed, rank, world_size, drop_last)
        self.batch_size, self._device = batch_size, torch.device(device)
        self._sampler = _EpochSampler()
        files = _Files(split, _RandomTransform(image_size, flip, scale, randaugment))
        self._loader = _file_loader(files, self._sampler, workers, self._device)
        count = _VIEW_IDS if flip or randaugment or scale is not None else 1
        words = ["centre" if scale is None else f"resized crop of {scale[0]}-{scale[1]}", *["flip"] * flip]
        words += [f"randaugment={randaugment}"] * (randaugment > 0) + [f"at {image_size[0]}×{image_size[1]}"]
        self._seen = _Seen(len(split), [count], cycle, ", ".join(words))

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


def _ignore_interrupt(worker: int) -> None:
    # A terminal sends Ctrl-C to every process of the run; the run itself decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _file_loader(files: _Files, batches: Iterable[Any], workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        files,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_interrupt,
        pin_memory=device.type == "cuda",
        generator=stream(0),  # without one, DataLoader draws its workers' seeds from torch's global generator
    )


class _RandomTransform:
    def __init__(self, size: tuple[int, int], flip: bool, scale: tuple[float, float] | None, randaugment: int) -> None:
        from torchvision.transforms import v2

        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise SettingError(f"scale must be two parts of the image with 0 < low <= high <= 1, got {scale!r}.")
        centre = partial(fit, size=size, crop_ratio=_CROP_RATIO)
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


def eval_batches(
    split: ImageSplit,
    batch_size: int,
    device: Device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    image_size: tuple[int, int] | None = None,
    workers: int = 0,
    crop_ratio: float = _CROP_RATIO,
) -> Iterable[Batch]:
    """The split once, in order, without augmentation; can be walked again.

    batch_size: of this process. Process ``rank`` takes its contiguous part; the parts of all cover every sample once.
    image_size: (H, W), for a split of files only, and needed there: their shorter side is scaled to the size divided by
    ``crop_ratio``, then the centre is cut. view is 0, the unchanged image.

    Raises SettingError where the settings do not fit.
    """
    _check_share(batch_size, rank, world_size)
    begin, end = len(split) * rank // world_size, len(split) * (rank + 1) // world_size
    parts = [range(first, min(first + batch_size, end)) for first in range(begin, end, batch_size)]
    if isinstance(split.images, Tensor):
        return _ResidentEval(split, parts, torch.device(device))
    if image_size is None:
        raise SettingError("a split of image files needs image_size, the (height, width) to bring them to.")
    return _FileEval(split, parts, torch.device(device), _CentreTransform(image_size, crop_ratio), workers)


@dataclass(frozen=True)
class _ResidentEval:
    split: ImageSplit
    parts: list[range]
    device: torch.device

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Batch]:
        for part in self.parts:
            rows = slice(part.start, part.stop)
            view = torch.zeros(len(part), dtype=torch.int64)
            images, labels, index = _resident(self.split)[rows], self.split.labels[rows], self.split.index[rows]
            yield Batch(images, labels, index, view).to(self.device)


class _FileEval:
    def __init__(
        self, split: ImageSplit, parts: list[range], device: torch.device, transform: _CentreTransform, workers: int
    ) -> None:
        self._device, self._batches = device, [[(position, 0) for position in part] for part in parts]
        self._loader = _file_loader(_Files(split, transform), self._batches, workers, device)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return (Batch(*values).to(self._device) for values in self._loader)

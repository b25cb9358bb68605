"""Loaders: what an epoch's batches are depends only on the seed and the number of the epoch.

So a run resumes from (epoch, position) and needs no random state; torch's global generator is never moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.file_batches import CROP_RATIO, FileBatches, FileEval
from limbeck.data.plan import Plan, Seen, check_share
from limbeck.data.slots import Slots
from limbeck.data.views import Views
from limbeck.data.vision import ImageSplit
from limbeck.errors import SettingError
from limbeck.signals import Batch

__all__ = ["FileBatches", "ResidentBatches", "eval_batches"]

Device = torch.device | str


def _resident(split: ImageSplit) -> Tensor:
    if not isinstance(split.images, Tensor):
        raise SettingError("this split holds paths of image files, not pixels; use FileBatches for it.")
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
        self._plan = Plan(len(split), batch_size, seed, rank, world_size, drop_last)
        sets = [views] if isinstance(views, Views) else views
        self.views = [each.with_size(images.shape[2], images.shape[3]).with_pool(len(split)) for each in sets]
        text = f"{' | '.join(map(str, self.views))} at {images.shape[2]}×{images.shape[3]}"
        self._seen = Seen(len(split), [each.count for each in self.views], cycle, text)
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


def eval_batches(
    split: ImageSplit,
    batch_size: int,
    device: Device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    image_size: tuple[int, int] | None = None,
    workers: int = 0,
    crop_ratio: float = CROP_RATIO,
) -> Iterable[Batch]:
    """The split once, in order, without augmentation; can be walked again.

    batch_size: of this process. Process ``rank`` takes its contiguous part; the parts of all cover every sample once.
    image_size: (H, W), for a split of files only, and needed there: their shorter side is scaled to the size divided by
    ``crop_ratio``, then the centre is cut. view is 0, the unchanged image.

    Raises SettingError where the settings do not fit.
    """
    check_share(batch_size, rank, world_size)
    begin, end = len(split) * rank // world_size, len(split) * (rank + 1) // world_size
    parts = [range(first, min(first + batch_size, end)) for first in range(begin, end, batch_size)]
    if isinstance(split.images, Tensor):
        return _ResidentEval(split, parts, torch.device(device))
    if image_size is None:
        raise SettingError("a split of image files needs image_size, the (height, width) to bring them to.")
    return FileEval(split, parts, torch.device(device), image_size, crop_ratio, workers)


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

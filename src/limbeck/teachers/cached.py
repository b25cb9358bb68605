"""A teacher that is read from a cache and never run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.errors import CacheError
from limbeck.signals import Batch, Signals
from limbeck.teachers.cache import TeacherCache

if TYPE_CHECKING:
    from limbeck.data import Slots

# Which signals an objective's needs are; the others are the batch's and the networks' own.
_SIGNALS_OF = {
    "logits": "logits",
    "embedding": "embedding",
    "features": "features",
    "stages": "features",
    "preactivations": "preactivations",
    "stem": "stem",
    "embedding_map": "embedding_map",
}
_PART_OF_FREE_MEMORY = 0.5


class CacheReader:
    """Entries of a cache as signals: from the device, where the whole cache is held there, or from the mapped files.

    held: whether it is held on the device.
    """

    def __init__(self, cache: TeacherCache, device: torch.device) -> None:
        self._cache, self._device = cache, device
        self.held = fits(device, cache.layout.bytes)
        self._whole = cache.load(device) if self.held else {}

    def signals(self, entries: Tensor) -> Signals:
        """float32 signals of ``entries``, int64 (B,), on the device."""
        layout = self._cache.layout
        if self.held:
            return layout.decode({name: value.index_select(0, entries) for name, value in self._whole.items()})
        found = self._cache.gather(entries.cpu())
        return layout.decode({name: value.to(self._device) for name, value in found.items()})


def check_held(cache: TeacherCache, needs: Iterable[str]) -> None:
    """Raise CacheError unless the cache holds what an objective needs of a teacher (``Objective.needs``)."""
    held = {name.partition(".")[0] for name in cache.layout.shapes}
    missing = sorted({need for need in needs if need in _SIGNALS_OF and _SIGNALS_OF[need] not in held})
    if missing:
        raise CacheError(
            f"the teacher cache {cache.folder} holds {' and '.join(sorted(held))}, and the objective needs the teacher's "
            f"{' and '.join(missing)}. Name another folder, or delete this one, to have a cache written that holds them."
        )


class CachedTeacher:
    """A ``Teacher`` whose signals were computed before: those of each sample in each view, float32.

    cache: opened for the identity of this run. slots: of the batches that will come. index: int64 (N,), of the split that
    the cache is of: ``Batch.index`` of each row of the cache. device: where the batches are.

    On an accelerator the whole cache is held there when it takes at most half of the memory that is free now, and no step
    waits for the host. Otherwise, and on the CPU, files stay mapped into memory: each batch's rows are read from there, for
    which an accelerator's step waits.

    Raises CacheError when the cache is of other slots, or a sample is in the split twice with views of its own.
    """

    sees_inputs = False

    def __init__(self, cache: TeacherCache, slots: Slots, index: Tensor, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.cache, self._reader = cache, CacheReader(cache, device)
        self.held = self._reader.held
        place = device if self.held else torch.device("cpu")
        self._rows = _rows_by_index(cache, slots, index).to(place)
        # None where the slot is the view itself.
        self._views = slots.ids.to(place) if len(slots.ids) > 1 else None
        self._missed = torch.zeros((), dtype=torch.bool, device=place)

    def require(self, needs: Iterable[str]) -> None:
        """Raise CacheError unless the cache holds what an objective needs of a teacher (``Objective.needs``)."""
        check_held(self.cache, needs)

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        """The stored signals of the batch's samples in the batch's views; ``inputs`` are not looked at.

        Raises CacheError when the batch does not tell its samples and views, or when one of them is not in the cache; on an
        accelerator that holds the cache, which a step does not wait for, the latter is raised by the next ``check``.
        """
        if batch.index is None or batch.view is None:
            raise CacheError(
                "a cached teacher needs to know each sample and its view, and these batches do not tell them: a user's own "
                "loader cannot be used with a teacher cache. Give the data by name, or train without a cache."
            )
        index, view = (value.to(self._rows.device, non_blocking=True) for value in (batch.index, batch.view))
        entries, known = self._entries(index, view)
        if self.held:
            self._missed.logical_or_(~known.all())
        elif not bool(known.all()):
            raise self._unknown(int(index[~known][0]), int(view[~known][0]))
        return self._reader.signals(entries)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """All epochs are the same."""

    def check(self) -> None:
        """Raise CacheError if a sample or view since the last ``check`` was not in the cache; waits for the device."""
        if bool(self._missed):
            self._missed.zero_()
            raise self._unknown()

    def _entries(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """The entry of each sample and view, int64 (B,), and whether there is one; 0 where there is none."""
        slots = self.cache.layout.slots
        rows = self._rows[index.clamp(0, len(self._rows) - 1)]
        known = (rows >= 0) & (index >= 0) & (index < len(self._rows))
        if self._views is None:
            slot, fits = view, (view >= 0) & (view < slots)
        else:
            same = self._views[rows.clamp(min=0)] == view.unsqueeze(1)
            slot, fits = same.to(torch.uint8).argmax(1), same.any(1)
        known = known & fits
        return torch.where(known, rows * slots + slot, 0), known

    def _unknown(self, index: int | None = None, view: int | None = None) -> CacheError:
        which = "a sample or a view of it" if index is None else f"sample {index} in view {view}"
        return CacheError(
            f"the teacher cache {self.cache.folder} does not hold {which}; the batches are not those that it was written "
            "for. Give the same data, augmentation and number of views."
        )


class AskedOnceTeacher:
    """A ``Teacher`` that was asked about each sample once, unchanged, and says the same to every view of it.

    stored: of the samples in view 0.
    """

    sees_inputs = False

    def __init__(self, stored: CachedTeacher) -> None:
        self.stored = stored

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        """The stored signals of the batch's samples; ``inputs`` and ``batch.view`` are not looked at."""
        view = None if batch.index is None else torch.zeros_like(batch.index)
        return self.stored.signals(inputs, replace(batch, view=view))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """All epochs are the same."""

    def check(self) -> None:
        """See ``CachedTeacher.check``."""
        self.stored.check()


def _rows_by_index(cache: TeacherCache, slots: Slots, index: Tensor) -> Tensor:
    """The cache's row of each index, int64; -1 where no sample has that index."""
    layout = cache.layout
    if layout.samples != len(index) or layout.slots != len(slots):
        raise CacheError(
            f"the teacher cache {cache.folder} holds {layout.samples:,} samples in {layout.slots} views, and the training "
            f"data has {len(index):,} in {len(slots)}."
        )
    if len(slots.ids) > 1 and len(index.unique()) < len(index):
        raise CacheError(
            "a sample is in the training data twice, each time with views of its own, so that an index does not tell which "
            "row of the teacher cache is meant; remove the double samples."
        )
    rows = torch.full((int(index.max()) + 1,), -1)
    rows[index.cpu()] = torch.arange(len(index))
    return rows


def fits(device: torch.device, size: int) -> bool:
    """Whether ``size`` bytes are to be held on a device: only where that is not the memory that files are mapped into."""
    return device.type == "cuda" and size <= _PART_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]

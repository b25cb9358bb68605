"""A user's own DataLoader as limbeck's batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from limbeck.data.seeds import mix
from limbeck.errors import DataError, SettingError
from limbeck.random_state import RandomState, RandomStream
from limbeck.signals import Batch

_END = object()


class LoaderBatches:
    """A user's own DataLoader as ``Batches``.

    loader: yields (inputs, labels), (inputs, labels, index), or mappings with ``image``, ``pixel_values`` or
    ``inputs``, with ``label`` or ``labels``, and perhaps ``index``. labels and index: int64 (B,).
    seed: with the epoch's number it seeds the shuffle: the generators of the loader and its samplers, ``set_epoch``,
    and torch's, NumPy's and Python's global generators while the loader runs, which get their state back after each
    batch. Random transforms in persistent workers are the exception: their state goes on from epoch to epoch.
    world_size: processes; with more than one, the loader's sampler must give each its own part (it has ``set_epoch``).
    batch_size: global; None to ask the loader.

    ``start`` loads and drops the batches before it. Raises SettingError or DataError on what cannot be read.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        world_size: int = 1,
        batch_size: int | None = None,
    ) -> None:
        self.loader, self._seed, self._device = loader, seed, torch.device(device)
        batch_sampler = getattr(loader, "batch_sampler", None)
        inner = getattr(batch_sampler, "sampler", None)
        self._owners: list[Any] = [loader, getattr(loader, "sampler", None), batch_sampler, inner]
        iterable = isinstance(getattr(loader, "dataset", None), IterableDataset)
        if world_size > 1 and not iterable and not any(hasattr(owner, "set_epoch") for owner in self._owners):
            raise SettingError(
                f"the loader would give all {world_size} processes the same samples; use a DistributedSampler in it."
            )
        self.batch_size = batch_size or world_size * _own_batch_size(loader)

    def __len__(self) -> int:
        try:
            return len(self.loader)
        except TypeError as error:
            raise DataError("the loader has no length; limbeck needs to know the batches of an epoch.") from error

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """See ``Batches.epoch``."""
        seed = mix(self._seed, number)
        for owner in self._owners:
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generator.manual_seed(seed)
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(number)
        stream = RandomStream(RandomState.seeded(seed))
        with stream.active():
            items = iter(self.loader)
        for position in count():
            # Around each batch, not the whole loop: what trains between two batches has the generators to itself.
            with stream.active():
                item = next(items, _END)
            if item is _END:
                return
            if position >= start:
                yield read_batch(item).to(self._device)


def _own_batch_size(loader: Any) -> int:
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        if isinstance(size := getattr(owner, "batch_size", None), int):
            return size
    raise SettingError("the loader does not tell its batch size; give batch_size, the samples over all processes.")


_INPUT_NAMES, _LABEL_NAMES = ("image", "pixel_values", "inputs"), ("label", "labels")


def read_batch(item: Any) -> Batch:
    """A ``Batch`` from what a loader yields (see LoaderBatches). Raises DataError that says what was expected."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        inputs, labels = _named(item, _INPUT_NAMES), _named(item, _LABEL_NAMES)
        index = item.get("index")
    elif isinstance(item, Sequence) and len(item) in (2, 3):
        inputs, labels, index = (*item, None)[:3]
    else:
        raise DataError(
            f"the loader must yield (inputs, labels), (inputs, labels, index) or a mapping, got {_describe(item)}."
        )
    if not isinstance(inputs, Tensor):
        raise DataError(f"the loader's inputs must be a tensor, got {_describe(inputs)}.")
    for name, value in (("labels", labels), ("index", index)):
        if value is not None:
            _check_classes(name, value, len(inputs))
    return Batch(inputs, labels, index)


def _named(item: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if item.get(name) is not None:
            return item[name]
    raise DataError(
        f"the loader's mapping needs {' or '.join(names)}; it has {', '.join(map(str, item)) or 'nothing'}."
    )


def _check_classes(name: str, value: Any, samples: int) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.shape != (samples,):
        raise DataError(
            f"the loader's {name} must be an int64 tensor ({samples},), one a sample; got {_describe(value)}."
        )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | tuple | dict) else type(value).__name__

"""The files of a cache: each holds the entries of a range of samples, and knows of which cache and samples."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limbeck.errors import CacheError
from limbeck.files import atomic_path
from limbeck.teachers._layout import Layout

# One entry, since several are written in any order, and the same cache should have the same bytes.
_MARK = "limbeck"
_DAMAGED = "Delete the folder and write the cache again, or write it once more to repair what is damaged."


class Shard:
    """One file of a cache. cache: the digits that the whole cache is known by."""

    def __init__(self, folder: Path, number: int, layout: Layout, cache: str) -> None:
        self.path = folder / f"signals-{number:05d}.safetensors"
        self.rows = layout.shards[number]
        self._layout = layout
        self._mark = f"cache {cache}, samples {self.rows.start}-{self.rows.stop}"

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the file whole or not at all, from tensors (entries, …) by name. Raises CacheError where the disk fails."""
        shaped = {
            name: value.view(len(self.rows), self._layout.slots, *value.shape[1:]) for name, value in tensors.items()
        }
        try:
            with atomic_path(self.path) as temporary:
                save_file(shaped, temporary, metadata={_MARK: f"{self._mark}, crc32 {_checksum(shaped)}"})
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"{self.path} could not be written ({error}). The finished files of the cache are kept: when the disk has "
                "room, the same command goes on."
            ) from error

    def open(self) -> dict[str, Tensor]:
        """Tensors (entries, …) by name, mapped and not read. Raises CacheError where the file is not what it should be."""
        shapes = self._layout.tensors
        with self._reading() as file:
            if self._marked(file)[0] != self._mark:
                raise CacheError(f"{self.path} is of another cache, or of other samples. {_DAMAGED}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        wanted = {
            name: (dtype, (len(self.rows), self._layout.slots, *shape)) for name, (dtype, shape) in shapes.items()
        }
        if {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()} != wanted:
            raise CacheError(f"{self.path} holds other tensors than the cache's manifest says. {_DAMAGED}")
        return {name: value.flatten(0, 1) for name, value in tensors.items()}

    def verify(self) -> None:
        """Read every byte. Raises CacheError where they are not those that were written.

        Which also tells of NaN: none is ever written.
        """
        tensors = self.open()
        with self._reading() as file:
            _, written = self._marked(file)
        if _checksum(tensors) != written:
            raise CacheError(f"the bytes of {self.path} are not those that were written. {_DAMAGED}")

    def is_whole(self) -> bool:
        """Whether the file is there with the bytes that were written."""
        try:
            self.verify()
        except CacheError:
            return False
        return True

    @staticmethod
    def _marked(file: Any) -> tuple[str, str]:
        """What the file is of, and its checksum."""
        mark, _, checksum = (file.metadata() or {}).get(_MARK, "").partition(", crc32 ")
        return mark, checksum

    def _reading(self) -> Any:
        if not self.path.is_file():
            raise CacheError(f"the cache is incomplete: {self.path} is missing. {_DAMAGED}")
        try:
            return safe_open(self.path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise CacheError(f"{self.path} is cut off or damaged ({error}). {_DAMAGED}") from error


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of all bytes, in the order of the names."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def shards_of(folder: Path, layout: Layout, cache: str) -> list[Shard]:
    """All files of a cache, in the samples' order."""
    return [Shard(folder, number, layout, cache) for number in range(len(layout.shards))]


def remove_leftovers(folder: Path) -> None:
    """Delete what a writer that was killed had not finished."""
    for path in _leftovers(folder):
        path.unlink(missing_ok=True)


def _leftovers(folder: Path) -> Iterator[Path]:
    # The names that atomic_path gives to files that are being written.
    yield from folder.glob(".signals-*.safetensors")
    yield from folder.glob(".manifest-*.json")

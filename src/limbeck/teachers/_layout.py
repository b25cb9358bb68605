"""What a cache holds of each sample and slot, and how it is divided into files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import CacheError
from limbeck.signals import Signals
from limbeck.teachers._codecs import Codec, Dense, parse_codec

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_USUAL = ("logits", "embedding")
_SHARD_BYTES = 256 * 10**6
# What is lost at most when a writer is killed: some minutes of a teacher.
_SHARD_ENTRIES = 2**17


@dataclass(frozen=True)
class Layout:
    """The signals of ``samples`` × ``slots`` entries; entry ``row · slots + slot`` is of one sample in one view.

    dtype: of stored numbers, "fp16" or "fp32". shapes: of each signal, a sample. logits: the codec of the logits, as text.
    shard_samples: samples a file; the last has the rest.
    """

    samples: int
    slots: int
    dtype: str
    shapes: Mapping[str, tuple[int, ...]]
    logits: str
    shard_samples: int

    @cached_property
    def parts(self) -> dict[str, dict[str, tuple[str, torch.dtype, tuple[int, ...]]]]:
        """For each signal, its stored parts: the name in the file, the dtype, and the shape of an entry."""
        return {
            name: {
                part: (f"{name}.{part}" if part else name, *kind)
                for part, kind in self.codec(name).layout(shape, DTYPES[self.dtype]).items()
            }
            for name, shape in self.shapes.items()
        }

    @cached_property
    def tensors(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """dtype and shape of an entry, of each tensor by its name in the files."""
        return {name: (dtype, shape) for parts in self.parts.values() for name, dtype, shape in parts.values()}

    @property
    def entry_bytes(self) -> int:
        """Bytes of one sample in one view."""
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in self.tensors.values())

    @property
    def bytes(self) -> int:
        """Bytes of all signals; the files' headers add some hundred each."""
        return self.samples * self.slots * self.entry_bytes

    @cached_property
    def shards(self) -> list[range]:
        """The samples, by their position in the split, of each file."""
        starts = range(0, self.samples, self.shard_samples)
        return [range(start, min(start + self.shard_samples, self.samples)) for start in starts]

    def codec(self, name: str) -> Codec:
        """How a signal is stored."""
        return parse_codec(self.logits) if name == "logits" else Dense()

    def encode(self, signals: Signals, index: Tensor, slots: Tensor) -> dict[str, Tensor]:
        """What is stored of a batch, by names in the files; numbers in the stored dtype.

        Raises CacheError when a signal is missing, of another shape, or has a number that cannot be stored.
        """
        present, stored = signals.tensors(), {}
        for name, shape in self.shapes.items():
            value = present.get(name)
            if value is None or tuple(value.shape[1:]) != shape:
                found = "none" if value is None else tuple(value.shape[1:])
                raise CacheError(f"the teacher's {name} should have the shape {shape} a sample; it gave {found}.")
            for part, encoded in self.codec(name).encode(value, index, slots).items():
                key, dtype, _ = self.parts[name][part]
                stored[key] = _cast(name, value, encoded, dtype)
        return stored

    def decode(self, stored: Mapping[str, Tensor]) -> Signals:
        """float32 signals of entries (B, …) by names in the files."""
        values = {}
        for name, parts in self.parts.items():
            of_signal = {part: stored[key] for part, (key, _, _) in parts.items()}
            values[name] = self.codec(name).decode(of_signal, self.shapes[name])
        return Signals.of_tensors(values)

    def distance(self, signals: Signals, stored: Mapping[str, Tensor], index: Tensor, slots: Tensor) -> Tensor:
        """How far stored entries are from a teacher's signals, (B,): the largest over the signals; see ``Codec.distance``."""
        present = signals.tensors()
        apart = [
            self.codec(name).distance(
                present[name].cpu(), {part: stored[key] for part, (key, _, _) in parts.items()}, index.cpu(), slots
            )
            for name, parts in self.parts.items()
        ]
        return torch.stack(apart).amax(0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "samples": self.samples,
            "slots": self.slots,
            "dtype": self.dtype,
            "logits": self.logits,
            "signals": {name: list(shape) for name, shape in self.shapes.items()},
            "tensors": {
                name: {"dtype": str(dtype).removeprefix("torch."), "shape": list(shape)}
                for name, (dtype, shape) in self.tensors.items()
            },
            "shard_samples": self.shard_samples,
            "shards": [[rows.start, rows.stop] for rows in self.shards],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """The layout that ``as_dict`` wrote. Raises KeyError, TypeError, AttributeError or ValueError on the rest."""
        made = cls(
            samples=_whole(values["samples"]),
            slots=_whole(values["slots"]),
            dtype=values["dtype"],
            shapes={name: tuple(_whole(side) for side in shape) for name, shape in values["signals"].items()},
            logits=values["logits"],
            shard_samples=_whole(values["shard_samples"]),
        )
        if made.as_dict() != {name: values[name] for name in made.as_dict()}:
            raise ValueError("its parts contradict each other")
        return made


def _whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no whole number of at least 1")
    return value


def _cast(name: str, value: Tensor, encoded: Tensor, dtype: torch.dtype) -> Tensor:
    stored = encoded.to(dtype)
    if not dtype.is_floating_point or bool(stored.isfinite().all()):
        return stored
    if not bool(value.isfinite().all()):
        raise CacheError(f"the teacher's {name} became NaN or infinite, so they cannot be kept; try precision fp32.")
    raise CacheError(
        f"the teacher's {name} reach {float(encoded.abs().max()):.3g}, and half precision ends at "
        f"{torch.finfo(dtype).max:,.0f}; store them in single precision (--cache-dtype fp32)."
    )


def make_layout(
    samples: int,
    slots: int,
    probe: Signals,
    *,
    keep: Sequence[str] | None,
    dtype: str,
    logits: str,
    file_samples: int | None = None,
) -> Layout:
    """The layout for what a teacher says, of which ``probe`` is an example; see ``plan_cache``."""
    codec = parse_codec(logits)
    if probe.mask is not None:
        raise CacheError("the teacher's signals have a mask of valid positions, which a cache does not hold.")
    shapes = {name: tuple(value.shape[1:]) for name, value in _kept(probe, keep).items()}
    whole = Layout(samples, slots, dtype, shapes, codec.text, samples)
    by_bytes = _SHARD_BYTES // max(1, whole.entry_bytes * slots)
    shard_samples = max(1, min(by_bytes, _SHARD_ENTRIES // slots, samples, file_samples or samples))
    return Layout(samples, slots, dtype, shapes, codec.text, shard_samples)


def _kept(probe: Signals, keep: Sequence[str] | None) -> dict[str, Tensor]:
    present = probe.tensors()
    wanted = [name for name in _USUAL if name in present] if keep is None else list(dict.fromkeys(keep))
    for name in wanted:
        if not any(_is_of(key, name) for key in present):
            raise CacheError(f"the teacher gives no {name} to store; it gives {', '.join(present) or 'nothing'}.")
    if not wanted:
        raise CacheError("the teacher gives neither logits nor an embedding, so there is nothing to store.")
    return {key: value for key, value in present.items() if any(_is_of(key, name) for name in wanted)}


def _is_of(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")

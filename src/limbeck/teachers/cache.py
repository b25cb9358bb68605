"""A teacher's answers on the disk: of which teacher, data, views and preprocessing they are, and how they are read.

A cache is a folder. ``manifest.json`` says what it is of (its identity) and what it holds (its layout); the shards
``signals-00000.safetensors`` … hold the signals of contiguous ranges of samples, each in all of its slots. Nothing is
unpickled, and a cache of anything else is an error, never a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from limbeck.distributed import rank, world_size
from limbeck.errors import CacheError, check_choice
from limbeck.files import atomic_path
from limbeck.fingerprint import of_module, of_split, of_tensors
from limbeck.signals import Batch, Signals
from limbeck.teachers._codecs import parse_codec
from limbeck.teachers._layout import DTYPES, Layout, make_layout
from limbeck.teachers._shards import Shard, shards_of
from limbeck.teachers.together import together

if TYPE_CHECKING:
    from limbeck.data import ImageSplit, Slots

MANIFEST = "manifest.json"
FORMAT = 1
# What the parts of an identity are called in a sentence.
_WORDS = {
    "teacher": "the teacher",
    "data": "the training data",
    "views": "the augmentation",
    "table": "the views that each sample is given",
    "preprocess": "the teacher's preprocessing",
    "precision": "the precision of the teacher's forward pass",
    "dtype": "the stored dtype",
    "logits": "how logits are stored",
    "beside": "the teachers beside the first",
    "format": "the version of the cache format",
}
# The settings that make some of them.
_SETTINGS = {"dtype": "--cache-dtype", "logits": "--cache-logits"}
_DIGITS = 12
# Relative to the largest number of an entry. float32: convolutions on an accelerator keep 10 bits of each factor.
_TOLERANCE = {"fp32": 2e-3, "fp16": 2**-7, "bf16": 2**-5}
_ROUNDING = {"fp16": 2**-10, "fp32": 0.0}


class SlotBatches(Protocol):
    """Training batches whose samples are seen in views that can be listed: ``ResidentBatches`` and ``FileBatches``."""

    @property
    def slots(self) -> Slots: ...

    def at(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """The batches of chosen (positions, slots)."""
        ...


Compute = Callable[[Batch], Signals]


@dataclass(frozen=True)
class Identity:
    """What a cache is of. Two caches with equal identities hold the same numbers, up to those of the arithmetic."""

    teacher: str
    data: str
    views: str
    table: str
    preprocess: str
    precision: str
    dtype: str
    logits: str
    format: int = FORMAT
    beside: str = ""


@dataclass(frozen=True)
class CachePlan:
    """A cache before it is written: what it will be of, and hold."""

    identity: Identity
    layout: Layout

    @property
    def bytes(self) -> int:
        """Bytes that its signals take on the disk."""
        return self.layout.bytes

    @property
    def digits(self) -> str:
        """32 hexadecimal digits that each of its files bears."""
        text = json.dumps([asdict(self.identity), self.layout.as_dict()], sort_keys=True)
        return of_tensors(plan=torch.tensor(list(text.encode()), dtype=torch.uint8))[:32]


def identify(
    teacher: nn.Module,
    split: ImageSplit,
    slots: Slots,
    preprocess: nn.Module,
    *,
    precision: str = "fp32",
    dtype: str = "fp16",
    logits: str = "dense",
    beside: str = "",
) -> Identity:
    """The identity of a teacher's answers.

    teacher: the network itself, without taps, as it is before anything folds or compiles it. slots: of the training
    batches. preprocess: from a batch's inputs to the teacher's. precision: of its forward pass, "fp32" or "bf16". dtype: of
    stored numbers, "fp16" or "fp32". logits: ``dense``, ``topk(K)`` or ``sampled(N)``. beside: other networks that have a part
    in the answers, in words and digits. Reads all weights and images; see
    ``limbeck.fingerprint``. Raises SettingError for a dtype or a way to store logits that does not exist.
    """
    check_choice("cache dtype", dtype, DTYPES)
    return Identity(
        teacher=f"{type(teacher).__name__} {of_module(teacher)}",
        data=f"{len(split):,} samples {of_split(split)}",
        views=slots.text,
        table=of_tensors(ids=slots.ids),
        preprocess=_described(preprocess),
        precision=precision,
        dtype=dtype,
        logits=parse_codec(logits).text,
        beside=beside,
    )


def _described(preprocess: nn.Module) -> str:
    # One that has no weights is all in its text, which reads better than digits.
    plain = not preprocess.state_dict() and "\n" not in repr(preprocess)
    return repr(preprocess) if plain else f"{type(preprocess).__name__} {of_module(preprocess)}"


def plan_cache(
    identity: Identity,
    samples: int,
    slots: int,
    probe: Signals,
    *,
    keep: Sequence[str] | None = None,
    file_samples: int | None = None,
) -> CachePlan:
    """What writing a cache would store, and so how large it is; writes nothing.

    probe: the teacher's signals for some batch. keep: names of ``Signals.tensors()``, or ``features`` and
    ``preactivations`` for all of these; None for the logits and the embedding, as far as there are. file_samples: the most
    samples of a file, which is what a writer that is killed does again. Raises CacheError for a signal that the teacher does
    not give.
    """
    layout = make_layout(
        samples, slots, probe, keep=keep, dtype=identity.dtype, logits=identity.logits, file_samples=file_samples
    )
    return CachePlan(identity, layout)


class TeacherCache:
    """A complete cache, open for reading; its files are mapped into memory and not read before they are needed."""

    def __init__(self, folder: Path, plan: CachePlan, shards: Sequence[Shard]) -> None:
        self.folder, self.plan = folder, plan
        self._shards = [shard.open() for shard in shards]

    @property
    def layout(self) -> Layout:
        """What it holds."""
        return self.plan.layout

    def gather(self, entries: Tensor) -> dict[str, Tensor]:
        """What is stored for ``entries``, int64 (B,) on the CPU (see ``Layout``), by names in the files."""
        if len(self._shards) == 1:
            return {name: value.index_select(0, entries) for name, value in self._shards[0].items()}
        # In the files' order, so that each file is asked once and writes its rows in one piece.
        ordered, order = entries.sort()
        size = self.layout.shard_samples * self.layout.slots
        bounds = torch.searchsorted(ordered, torch.arange(len(self._shards) + 1) * size).tolist()
        found = {
            name: torch.empty(len(entries), *shape, dtype=dtype) for name, (dtype, shape) in self.layout.tensors.items()
        }
        for number, (begin, end) in enumerate(pairwise(bounds)):
            if begin < end:
                within = ordered[begin:end] - number * size
                for name, value in self._shards[number].items():
                    torch.index_select(value, 0, within, out=found[name][begin:end])
        back = order.argsort()
        return {name: value.index_select(0, back) for name, value in found.items()}

    def load(self, device: torch.device) -> dict[str, Tensor]:
        """All entries, (samples · slots, …) by names in the files, on a device."""
        entries, whole = self.layout.samples * self.layout.slots, {}
        for name, (dtype, shape) in self.layout.tensors.items():
            whole[name] = torch.empty(entries, *shape, dtype=dtype, device=device)
            # One file after another: the device must hold them once, not twice.
            parts = whole[name].split(self.layout.shard_samples * self.layout.slots)
            for part, shard in zip(parts, self._shards, strict=True):
                part.copy_(shard[name])
        return whole


def find_cache(folder: str | Path, identity: Identity, *, verify: bool = True) -> TeacherCache | None:
    """The cache in ``folder``; None when there is none yet, or one of the same identity that is not complete.

    verify: read every file once, of several processes each its part, and compare its bytes with the checksum that was
    written.

    Raises CacheError when the cache is of something else (each part that differs is named), or is damaged.
    """
    folder, found = Path(folder), None
    with together():
        stored = read_manifest(folder)
        if stored is not None:
            check_same(folder, stored[0].identity, identity)
            found = stored[0] if stored[1] else None
        if found is not None and verify:
            for shard in shards_of(folder, found.layout, found.digits)[rank() :: world_size()]:
                shard.verify()
    if found is None:
        return None
    return TeacherCache(folder, found, shards_of(folder, found.layout, found.digits))


def read_manifest(folder: Path) -> tuple[CachePlan, bool] | None:
    """The plan of the cache in ``folder`` and whether it is complete; None when there is no manifest.

    Raises CacheError when the manifest is damaged, or of another version of the format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values["identity"]["format"]
        if found == FORMAT:
            return _plan_of(values), _flag(values["complete"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(
            f"{path} is damaged or no manifest of a teacher cache ({type(error).__name__}: {error}); name another folder, "
            "or delete this one."
        ) from error
    raise CacheError(
        f"the teacher cache {folder} has version {found!r} of the format, and this limbeck reads version {FORMAT}; name "
        "another folder, or delete this one."
    )


def _plan_of(values: Mapping[str, Any]) -> CachePlan:
    identity = Identity(**values["identity"])
    if not all(isinstance(getattr(identity, field.name), str) for field in fields(identity) if field.name != "format"):
        raise ValueError("its identity is no text")
    layout = Layout.from_dict(values)
    if (layout.dtype, layout.logits) != (identity.dtype, identity.logits):
        raise ValueError("its identity and its layout contradict each other")
    return CachePlan(identity, layout)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("'complete' is neither true nor false")
    return value


def write_manifest(folder: Path, plan: CachePlan, *, complete: bool) -> None:
    """Write the manifest, whole or not at all."""
    values = {"identity": asdict(plan.identity), **plan.layout.as_dict(), "complete": complete}
    try:
        with atomic_path(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except OSError as error:
        raise CacheError(f"{folder / MANIFEST} could not be written ({error}).") from error


def check_same(folder: Path, stored: Identity, wanted: Identity) -> None:
    """Raise CacheError unless the identities are equal; it names every part that differs."""
    ours, theirs = asdict(wanted), asdict(stored)
    # The table follows from the views and the number of samples; alone it tells of another way to draw.
    follows = {"table"} if ours["views"] != theirs["views"] or ours["data"] != theirs["data"] else set()
    differing = [name for name in ours if ours[name] != theirs[name] and name not in follows]
    if differing:
        listed = "; ".join(
            f"{_WORDS[name]}: {_short(theirs[name])} there, {_short(ours[name])} now" for name in differing
        )
        # Where nothing else differs, the settings that it was written with read it.
        given = [f"{_SETTINGS[name]} '{theirs[name]}'" for name in differing if name in _SETTINGS]
        again = f"Give {' and '.join(given)} to read it, name" if len(given) == len(differing) else "Name"
        raise CacheError(
            f"the teacher cache {folder} is of something else. {listed[0].upper()}{listed[1:]}. {again} another folder, or "
            "delete this one to have it written anew."
        )


def _short(value: object) -> str:
    short = re.sub(rf"\b([0-9a-f]{{{_DIGITS}}})[0-9a-f]{{20,}}\b", r"\1…", str(value))
    return f"'{short}'" if ", " in short else short


def spot_check(
    cache: TeacherCache, batches: SlotBatches, compute: Compute, *, index: Tensor, count: int = 16, seed: int = 0
) -> float:
    """Compute ``count`` random entries anew and compare; returns the largest difference.

    batches, compute: as for ``write_cache``. index: int64 (N,), the split's own. Differences are relative to the largest
    number of an entry; the tolerance is the rounding of the stored dtype (2⁻¹⁰ for fp16) and that of the teacher's forward
    pass (0.002 for fp32, 2⁻⁵ for bf16), whose sums depend on the batch and the device.

    Raises CacheError when an entry differs by more, with how many do and by how much.
    """
    layout, generator = cache.layout, torch.Generator().manual_seed(seed)
    entries = torch.randint(layout.samples * layout.slots, (count,), generator=generator)
    positions, slots = entries // layout.slots, entries % layout.slots
    with together(), torch.no_grad():
        (batch,) = batches.at([(positions, slots)])
        apart = layout.distance(compute(batch), cache.gather(entries), index[positions], slots)
        tolerance = _ROUNDING[layout.dtype] + _TOLERANCE.get(cache.plan.identity.precision, _TOLERANCE["bf16"])
        wrong = ~(apart <= tolerance)
        if bool(wrong.any()):
            raise CacheError(
                f"{int(wrong.sum())} of {count} entries of the teacher cache {cache.folder} differ from what the teacher says "
                f"now, by up to {float(apart.max()):.3g} of their largest number ({tolerance:.3g} is allowed). The teacher's "
                "code, the image files or the augmentation have changed since it was written: delete the folder to have it "
                "written anew."
            )
    return float(apart.max())

"""Writes a cache, goes on with one that was interrupted, and leaves nothing half-written in use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from limbeck.distributed import rank, world_size
from limbeck.errors import CacheError
from limbeck.teachers._identity import check_same
from limbeck.teachers._layout import Layout
from limbeck.teachers._lock import LOCK, writing_alone
from limbeck.teachers._shards import Shard, remove_leftovers, shards_of
from limbeck.teachers.cache import (
    MANIFEST,
    CachePlan,
    Compute,
    SlotBatches,
    TeacherCache,
    read_manifest,
    write_manifest,
)
from limbeck.teachers.together import of_first, together

Progress = Callable[[int, int], None]


def write_cache(
    folder: str | Path,
    plan: CachePlan,
    batches: SlotBatches,
    compute: Compute,
    *,
    batch_size: int = 512,
    on_progress: Progress | None = None,
) -> TeacherCache:
    """Compute a teacher's signals for every sample in every slot, and store them.

    A cache of the same plan that was interrupted goes on: files with the bytes that were written are kept. Of several
    processes with torch.distributed, which must see the same folder, each writes every W-th missing file.

    batches: the training batches, whose slots the plan is of. compute: the teacher's signals of a batch, with its own
    preprocessing; called without gradient. batch_size: entries at once. on_progress: called by each process with the entries
    that it has done and has to do.

    Raises:
        CacheError: the folder holds something else, another process writes it, the disk is too small or becomes full, or
            a signal cannot be stored; the same in all processes.
    """
    folder = Path(folder)
    with ExitStack() as held:
        missing: list[int] = []
        with together():
            if rank() == 0:
                _enter(folder)
                held.enter_context(writing_alone(folder))
                missing = _begin(folder, plan)
        missing = of_first(missing)
        _write(folder, plan, missing, batches, compute, batch_size, on_progress)
        with together():
            # Looked at by the first alone: on several machines, a folder that is not the same one is noticed here.
            if rank() == 0:
                for number in missing:
                    shards_of(folder, plan.layout, plan.digits)[number].open()
                write_manifest(folder, plan, complete=True)
    return TeacherCache(folder, plan, shards_of(folder, plan.layout, plan.digits))


def _enter(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if path.name != LOCK]
    except OSError as error:
        raise CacheError(f"the teacher cache {folder} cannot be made ({error}).") from error
    if others and not (folder / MANIFEST).exists() and not all(name.startswith(".manifest-") for name in others):
        raise CacheError(f"{folder} exists and is no teacher cache; name another folder.")


def _begin(folder: Path, plan: CachePlan) -> list[int]:
    """The numbers of the files that are to be written."""
    remove_leftovers(folder)
    stored = read_manifest(folder)
    if stored is not None:
        check_same(folder, stored[0].identity, plan.identity)
        _check_layout(folder, stored[0].layout, plan.layout)
    shards = shards_of(folder, plan.layout, plan.digits)
    missing = [number for number, shard in enumerate(shards) if stored is None or not shard.is_whole()]
    _require_space(folder, plan, sum(len(shards[number].rows) for number in missing))
    write_manifest(folder, plan, complete=False)
    return missing


def _check_layout(folder: Path, stored: Layout, wanted: Layout) -> None:
    if stored != wanted:
        raise CacheError(
            f"the teacher cache {folder} holds {', '.join(stored.shapes)} of {stored.samples:,} samples in {stored.slots} "
            f"views each, and {', '.join(wanted.shapes)} of {wanted.samples:,} in {wanted.slots} are asked for. Name another "
            "folder, or delete this one to have it written anew."
        )


def _require_space(folder: Path, plan: CachePlan, samples: int) -> None:
    needed, free = samples * plan.layout.slots * plan.layout.entry_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"the teacher cache needs {_size(needed)} and the disk of {folder} has {_size(free)} free; fewer views of each "
            "sample (--views), top-k logits, or another disk would do."
        )


def _size(count: int) -> str:
    return f"{count / 10**9:,.2f} GB" if count >= 10**7 else f"{count / 10**3:,.0f} kB"


def _write(
    folder: Path,
    plan: CachePlan,
    missing: list[int],
    batches: SlotBatches,
    compute: Compute,
    batch_size: int,
    on_progress: Progress | None,
) -> None:
    shards, layout = shards_of(folder, plan.layout, plan.digits), plan.layout
    mine = missing[rank() :: world_size()]
    total = sum(len(shards[number].rows) for number in mine) * layout.slots
    done = 0

    def advance(entries: int) -> None:
        nonlocal done
        done += entries
        if on_progress is not None:
            on_progress(done, total)

    # All processes take as many turns, so that the failure of one is known to all after its file.
    for turn in range(-(-len(missing) // world_size())):
        with together():
            if turn < len(mine):
                shard = shards[mine[turn]]
                shard.write(_signals(shard, layout, batches, compute, batch_size, advance))


def _signals(
    shard: Shard,
    layout: Layout,
    batches: SlotBatches,
    compute: Compute,
    batch_size: int,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    """The tensors of a file: the entries of its samples, one sample after another, each in all slots."""
    entries = torch.arange(len(shard.rows) * layout.slots)
    parts = [(shard.rows.start + part // layout.slots, part % layout.slots) for part in entries.split(batch_size)]
    stored = {name: torch.empty(len(entries), *shape, dtype=dtype) for name, (dtype, shape) in layout.tensors.items()}
    begin = 0
    with torch.no_grad():
        for batch, (_, slots) in zip(batches.at(parts), parts, strict=True):
            assert batch.index is not None
            for name, value in layout.encode(compute(batch), batch.index, slots).items():
                stored[name][begin : begin + len(batch)] = value
            begin += len(batch)
            advance(len(batch))
    return stored

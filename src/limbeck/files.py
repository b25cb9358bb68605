"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` at the end of the block, removed if it fails.

    The bytes are on the disk before the rename, so a crash leaves the old file or the new one. Missing parent folders
    are made. The temporary name keeps the suffix, since some writers add their own when it is absent.
    """
    # Resolved, so that writing through a link replaces the file it points to and not the link.
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        mode = _mode_of_new_file(temporary)
        yield temporary
        # Some writers (safetensors) make a file that nobody else may read, which is no use to a server.
        temporary.chmod(mode)
        _flush_to_disk(temporary)
        temporary.replace(target)
        _flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _mode_of_new_file(path: Path) -> int:
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write to; put in its place at the end of the block, removed if it fails.

    A folder that is there is replaced, and deleted only when the new one stands in its place. The bytes are on the disk before.
    """
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    temporary, replaced = (target.with_name(f".{target.name}-{mark}-{what}") for what in ("new", "old"))
    temporary.mkdir()
    try:
        mode = _mode_of_new_file(temporary / "probe")
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                # Some writers (safetensors) make a file that nobody else may read, which is no use to a server.
                file.chmod(mode)
            _flush_to_disk(file)
        _flush_to_disk(temporary)
        if target.exists():
            target.rename(replaced)
        try:
            temporary.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
        _flush_to_disk(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

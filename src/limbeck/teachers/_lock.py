"""One writer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.errors import CacheError

LOCK = "lock"


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, which the system releases however the process ends.

    Raises CacheError when another process has it, with that process's number.
    """
    try:
        import fcntl
    except ImportError:
        raise CacheError("writing a teacher cache needs file locks, which this system does not have.") from None
    # Not emptied when opened: it holds the number of the process that writes now.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            writer = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise CacheError(
                f"the teacher cache {folder} is being written by another process (pid {writer}); wait until it is done, "
                "or choose another folder."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)

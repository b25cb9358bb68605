"""What a run needs to go on exactly where it was, in one file that is never half written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from limbeck.distributed import rank, world_size
from limbeck.errors import RunFolderError
from limbeck.files import atomic_path

_VERSION = 2


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dicts. The old file stays in place until the new one is complete on disk."""
    with atomic_path(path) as temporary:
        try:
            torch.save({"version": _VERSION, **state}, temporary)
        except RuntimeError as error:
            raise _write_error(error, path) from error


def _write_error(error: RuntimeError, path: Path) -> Exception:
    # torch's writer says only that its position is not what it should be; a disk that is full is the usual reason.
    if not any(sign in str(error) for sign in ("inline_container", "PytorchStreamWriter", "iostream")):
        return error
    full = shutil.disk_usage(path.parent).free < 2**20
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain containers."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunFolderError(f"the checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise RunFolderError(f"{path} is not a checkpoint of this version of limbeck (expected version {_VERSION}).")
    return state


def every_process(own: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process has, in rank order."""
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def of_this_process(states: list[dict[str, Any]]) -> dict[str, Any]:
    """This process's own of what :func:`every_process` gathered. The number of processes must be the same as then."""
    if len(states) != world_size():
        raise RunFolderError(
            f"the checkpoint is of a run with {len(states)} processes and there are {world_size()} now; "
            "an exact resume needs the same number."
        )
    return states[rank()]

"""Facts about the machine and the command that a result is written down with."""

from __future__ import annotations

import platform
import resource
import shlex
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PROC_STATUS = Path("/proc/self/status")


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version()}
    for package in ("limbeck", "torch", "torchvision", "timm", "accelerate", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command this process was started with, quoted so that a shell reads it as it was given."""
    path = Path(sys.argv[0])
    program = f"python -m {path.parent.name}" if path.name == "__main__.py" else path.name
    return " ".join([program, *(_quoted(argument) for argument in sys.argv[1:])])


def _quoted(argument: str) -> str:
    """Double quotes around single ones where a shell changes nothing between them, which is easier to read than shlex's."""
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)


def now() -> str:
    """The time, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's model, or the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread" + "s" * (threads > 1)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory in use so far, in MiB: tensors on a GPU, the whole process elsewhere."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    with suppress(OSError, StopIteration):  # Linux tells the process's own; what getrusage tells outlives an exec
        lines = _PROC_STATUS.read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10, 1)
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)

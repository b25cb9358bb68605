"""The most memory that a piece of work has allocated at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Read when torch's profiler starts: it writes to stderr at every start otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most that one call has allocated at once, above what was there before.

    On a GPU it is PyTorch's own count. On a CPU the profiler notes every block that PyTorch's allocator gives and takes back.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return _peak_of([event for event in events if event.get("name") == "[memory]"])


def _peak_of(events: Sequence[dict[str, Any]]) -> int:
    alive: dict[int, int] = {}
    now = peak = 0
    for event in sorted(events, key=lambda event: float(event["ts"])):
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            alive[address] = size
            now += size
            peak = max(peak, now)
        else:
            now -= alive.pop(address, 0)  # a block from before the call counts neither way
    return peak

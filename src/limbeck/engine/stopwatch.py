"""How long parts of a step take, without waiting for the device in the step."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up the time of its blocks: by the clock on a CPU, by events in the stream on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] | None = [] if device.type == "cuda" else None
        self._seconds = 0.0
        self._start: float | torch.cuda.Event = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter() if self._events is None else _event()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is None:
            assert isinstance(self._start, float)
            self._seconds += time.perf_counter() - self._start
        else:
            assert isinstance(self._start, torch.cuda.Event)
            self._events.append((self._start, _event()))

    def take(self) -> float:
        """The seconds since the last call; waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

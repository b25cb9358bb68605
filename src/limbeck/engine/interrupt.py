"""Ctrl-C and termination end a run between two steps, after a checkpoint."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from limbeck.distributed import world_size
from limbeck.errors import LimbeckError


class Interrupted(LimbeckError):
    """A signal asked the run to stop; it was saved first."""

    def __init__(self, number: int, step: int, folder: Path | None) -> None:
        self.exit_code = 128 + number
        saved = f" and saved in {folder}; run the same command with --resume to go on" if folder else ""
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}{saved}.")


class InterruptGuard:
    """While active, SIGINT and SIGTERM set ``number`` instead of ending the process; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptGuard:
        # Python allows handlers in the main thread only; elsewhere signals keep their usual effect.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def requested(self, device: torch.device, *, at_boundary: bool) -> bool:
        """Whether to stop now. Several processes agree at boundaries only, so that none waits for one that has left."""
        if world_size() == 1:
            return bool(self.number)
        if not at_boundary:
            return False
        number = torch.tensor(self.number, device=device)
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        self.number = int(number)
        return bool(self.number)

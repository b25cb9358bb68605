"""Where a run is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Position:
    """Where a run is: ``batch`` batches of ``epoch`` of ``stage`` are done; ``step`` counts all optimizer steps."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0

    def after_step(self) -> Position:
        """Where it is when a batch more is done."""
        return replace(self, batch=self.batch + 1, step=self.step + 1)

    def after_epoch(self) -> Position:
        """Where it is when the epoch is done."""
        return replace(self, epoch=self.epoch + 1, batch=0)

    def after_stage(self) -> Position:
        """Where it is when the stage is done."""
        return replace(self, stage=self.stage + 1, epoch=0, batch=0)

    def epochs(self, batches: int) -> float:
        """The epochs of the stage that are done, of so many batches each, with the part of the one that it is in."""
        return self.epoch + self.batch / batches

    def told(self, split: str, batches: int, seconds: float) -> dict[str, Any]:
        """What a record of metrics says of where they were measured."""
        epochs = round(self.epochs(max(1, batches)), 4)
        return {"split": split, "step": self.step, "stage": self.stage, "epoch": epochs, "seconds": round(seconds, 3)}

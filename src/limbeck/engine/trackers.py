"""TensorBoard, Weights & Biases and trackio, through Accelerate."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.tracking import filter_trackers

from limbeck.config import RunSettings
from limbeck.engine.callbacks import Callback
from limbeck.errors import MissingExtraError

if TYPE_CHECKING:
    from limbeck.engine.loop import Loop


class Trackers(Callback):
    """Sends the settings once and the metrics as they come to the trackers named in the settings.

    Raises:
        MissingExtraError: a tracker's package is not installed.
    """

    def __init__(self, accelerator: Accelerator, settings: RunSettings, folder: Path) -> None:
        for tracker in settings.trackers:
            if importlib.util.find_spec(tracker) is None:
                raise MissingExtraError(tracker, "track", f"the tracker '{tracker}'")
        self.accelerator = accelerator
        accelerator.project_configuration.set_directories(str(folder))
        # Set here and not when the Accelerator is made: the run's folder is only known, and only made, after that.
        accelerator.log_with = filter_trackers(list(settings.trackers), str(folder))
        self.values = settings.model_dump(mode="json")

    def on_start(self, loop: Loop) -> None:
        # TensorBoard keeps plain values only.
        plain = {k: v if isinstance(v, int | float | str | bool) else json.dumps(v) for k, v in self.values.items()}
        self.accelerator.init_trackers("limbeck", config=plain)

    def on_log(self, loop: Loop, metrics: dict[str, float]) -> None:
        self.accelerator.log({f"train/{name}": value for name, value in metrics.items()}, step=loop.position.step)

    def on_epoch(self, loop: Loop, metrics: dict[str, float]) -> None:
        if metrics:
            self.accelerator.log(
                {f"validation/{name}": value for name, value in metrics.items()}, step=loop.position.step
            )

    def on_end(self, loop: Loop) -> None:
        self.accelerator.end_training()

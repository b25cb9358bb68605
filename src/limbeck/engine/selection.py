"""Which of a student's weights are kept: the last, or the best on the validation split; with a moving average, of these."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from limbeck.config import RunSettings
from limbeck.engine.ema import MovingAverage
from limbeck.engine.runtime import load_whole_state, whole_state
from limbeck.engine.trainable import Trainable
from limbeck.errors import SettingError
from limbeck.evaluate.accuracy import Score


@dataclass
class Outcome:
    """What a student's training has found so far. Accuracies are of the validation split, None without one.

    judged: where another figure than the accuracy says which epoch is best, that figure by its name; ``best_accuracy`` is that
    epoch's then.
    seconds: of the whole pass. own_seconds: of this student's part of it.
    """

    last_accuracy: float | None = None
    best_accuracy: float | None = None
    best_epoch: int | None = None
    judged: dict[str, float] | None = None
    seconds: float = 0.0
    own_seconds: float = 0.0


class Selection:
    """The weights of a student that are kept, by name, on the CPU.

    outcome: what was found so far. best: the weights of the best epoch; None where the last are kept.

    Raises SettingError for a moving average of a student that gets a new classifier.
    """

    def __init__(self, trainable: Trainable, settings: RunSettings) -> None:
        if settings.ema and trainable.new_classifier is not None:
            raise SettingError(
                f"ema averages the student alone, and '{trainable.objectives[-1]}' gives it a new classifier."
            )
        self._trainable, self._select = trainable, settings.select
        self._ema = MovingAverage(trainable.student, settings.ema) if settings.ema else None
        self.outcome = Outcome()
        self.best: dict[str, Tensor] | None = None

    @property
    def averages(self) -> bool:
        """Whether a moving average of the weights is kept."""
        return self._ema is not None

    def after_step(self) -> None:
        """Take in the weights of a step."""
        if self._ema is not None:
            self._ema.update(self._trainable.student)

    def averaged(self) -> Any:
        """A context in which the student has the weights of its moving average, if there is one."""
        return nullcontext() if self._ema is None else self._ema.in_place_of(self._trainable.student)

    def remember(self, result: Score, judged: dict[str, float] | None, epoch: int, *, final: bool) -> None:
        """Take in a validation's result; ``final`` for the last stage, which alone makes the result."""
        outcome = self.outcome
        outcome.last_accuracy = result.accuracy
        found, known = (result.accuracy, outcome.best_accuracy)
        if judged is not None:
            ((name, found),) = judged.items()
            known = None if outcome.judged is None else outcome.judged[name]
        if final and (known is None or found > known):
            outcome.best_accuracy, outcome.best_epoch, outcome.judged = result.accuracy, epoch, judged
            if self._select == "best":
                self.best = self._present()

    def settle(self) -> dict[str, Tensor]:
        """Put the selected weights (best or last) into the student, and return them."""
        kept = self.best if self.best is not None else self._present()
        for prefix, module in self._trainable.kept().items():
            own = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
            load_whole_state(module, own)
        return kept

    def forget(self) -> None:
        """Let go of all weights; the outcome stays."""
        self.best = self._ema = None

    def state(self) -> dict[str, Any]:
        """What it needs to go on, as tensors and plain values."""
        return {
            "ema": None if self._ema is None else self._ema.state_dict(),
            "outcome": asdict(self.outcome),
            "best": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.best = state["best"]
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])

    def _present(self) -> dict[str, Tensor]:
        """The weights as they would be kept now: the moving average's when there is one."""
        with self.averaged():
            return {
                prefix + name: value
                for prefix, module in self._trainable.kept().items()
                for name, value in whole_state(module).items()
            }

"""How far a run is, on stderr: one live line on a terminal, elsewhere a plain line an epoch, of short ones a few."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.summary import duration, share
from limbeck.engine.callbacks import Callback
from limbeck.runs import SEARCH_FIGURES

if TYPE_CHECKING:
    from limbeck.engine.loop import Loop

_BAR = 20
_PLAIN_SECONDS = 10.0
_EPOCH_SECONDS = 2.0
_FIRST = (1, 2, 3)


class Progress(Callback):
    """Shows where the loop is. A context, so that the terminal is left in order whatever happens.

    Nothing is shown per step: the live line is drawn anew four times a second from ``loop.position``, and the figures are
    those that the loop fetched from the device for its own log.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self.loop: Loop | None = None
        self.live: Live | None = None
        self.metrics: dict[str, float] = {}
        self.accuracies: list[float] = []
        self.judged: dict[str, list[float]] = {}
        self.started = self.printed = 0.0
        self.first_step = 0

    # -- the loop's calls ----------------------------------------------------------------------------------------------

    def on_start(self, loop: Loop) -> None:
        self.loop, self.first_step = loop, loop.position.step
        self.started = self.printed = time.perf_counter()
        found = [learner.outcome.last_accuracy for learner in loop.learners]
        self.accuracies = [accuracy for accuracy in found if accuracy is not None]
        output = self.output
        if output.err.is_terminal and output.speaks and not output.options.quiet:
            self.live = Live(console=output.err, get_renderable=self._line, refresh_per_second=4, transient=True)
            self.live.start()

    def on_log(self, loop: Loop, metrics: dict[str, float]) -> None:
        self.metrics = dict(metrics)
        if time.perf_counter() - self.printed >= _PLAIN_SECONDS:
            self._print()

    def on_epoch(self, loop: Loop, metrics: dict[str, float]) -> None:
        self.accuracies = _of(metrics, "accuracy") or self.accuracies
        judged = {words: _of(metrics, name) for name, words in SEARCH_FIGURES.items()}
        self.judged = {words: values for words, values in judged.items() if values} or self.judged
        # Where epochs take no time, a line for each would be all that is to be read.
        epoch, last = loop.position.epoch, loop.stages[loop.position.stage].epochs
        if epoch in (*_FIRST, last) or time.perf_counter() - self.printed >= _EPOCH_SECONDS:
            self._print()

    def on_end(self, loop: Loop) -> None:
        self._stop()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    # -- the text ------------------------------------------------------------------------------------------------------

    def _print(self) -> None:
        if self.live is None:
            self.printed = time.perf_counter()
            self.output.say("  ".join(self._parts()))

    def _line(self) -> Text:
        if self.loop is None:
            return Text("")
        done, total = self._steps(self.loop)
        filled = round(_BAR * done / max(1, total))
        bar = [("━" * filled, "green"), ("━" * (_BAR - filled), "bright_black")]
        where, *rest = self._parts()
        return Text.assemble(where, "  ", *bar, "  ", "  ".join(rest), no_wrap=True, overflow="ellipsis")

    def _parts(self) -> list[str]:
        loop = self.loop
        assert loop is not None
        parts = [self._where(loop)]
        elapsed = time.perf_counter() - self.started
        steps = loop.position.step - self.first_step
        if steps and elapsed > 0:
            done, total = self._steps(loop)
            students = f" × {len(loop.active)} students" if len(loop.learners) > 1 else ""
            parts.append(f"{steps / elapsed * loop.batches.batch_size:,.0f} {loop.samples}/s{students}")
            parts.append(f"{duration(elapsed / steps * (total - done))} left")
        if self.accuracies:
            parts.append(f"validation {_range(self.accuracies)}")
        parts += [f"{words} {_range(values)}" for words, values in self.judged.items()]
        if "loss" in self.metrics:  # last, as the longest: a narrow terminal cuts it
            parts.append(self._losses())
        return parts

    def _where(self, loop: Loop) -> str:
        number, last = loop.position.stage, len(loop.stages) - 1
        stage = loop.stages[min(number, last)]
        # Within an epoch its number is one more than the epochs that are done; after the last stage the loop stands at 0.
        epoch = stage.epochs if number > last else min(loop.position.epoch + (loop.position.batch > 0), stage.epochs)
        stages = f"stage {min(number, last) + 1}/{last + 1} " if last else ""
        return f"{stages}epoch {epoch}/{stage.epochs}"

    def _losses(self) -> str:
        named = [] if self.loop is None or len(self.loop.learners) > 1 else self.loop.learners[0].terms
        terms = {name: self.metrics[name] for name in named if name in self.metrics}
        inner = f" ({', '.join(f'{name} {value:.3f}' for name, value in terms.items())})" if len(terms) > 1 else ""
        return f"loss {self.metrics['loss']:.3f}{inner}"

    @staticmethod
    def _steps(loop: Loop) -> tuple[int, int]:
        return loop.position.step, sum(stage.epochs for stage in loop.stages) * len(loop.batches)


def _of(metrics: dict[str, float], wanted: str) -> list[float]:
    """A figure of all students, whose names stand before it."""
    return [value for name, value in metrics.items() if name.rpartition("/")[2] == wanted]


def _range(values: list[float]) -> str:
    low, high = share(min(values)), share(max(values))
    return high if low == high else f"{low} to {high}"

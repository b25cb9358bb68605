"""The training loop: one for every task, teacher and objective, and for one student or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator

from limbeck.config import RunSettings
from limbeck.engine.callbacks import Callback
from limbeck.engine.checkpoint import load_checkpoint, save_checkpoint
from limbeck.engine.interrupt import Interrupted, InterruptGuard
from limbeck.engine.learner import Learner
from limbeck.engine.lesson import Lesson, mean_over_processes
from limbeck.engine.position import Position
from limbeck.engine.runtime import allow_compiling, whole_parameters
from limbeck.engine.trainable import Stage, Trainable
from limbeck.engine.validation import Judged, evaluate
from limbeck.errors import Failure, NonFiniteError, RunFolderError, SettingError
from limbeck.evaluate.accuracy import Score
from limbeck.evaluate.judge import Judge
from limbeck.machine import now
from limbeck.signals import Batch, Batches, Signals
from limbeck.tasks.base import Seen


class Loop:
    """Trains one or more :class:`Learner` through their stages in one pass over the data.

    Each step: the batch is loaded and augmented once, the teacher sees it once, and each student in turn learns from it:
    the active objective's terms are summed, the optimizer steps. In turn, so that the activations of one student at a time
    are in memory, and so that each learns exactly what it would learn alone. Nothing in the step waits for the device: terms
    are summed there and fetched every ``log_steps`` steps (on the CPU, where looking is free, every step is checked for NaN).

    Args:
        learners: with the same number of stages and the same epochs in each.
        lesson: the teacher, and what is asked of it about a batch.
        validation: makes the validation batches, or None. judge: what selects weights on them instead of the accuracy.
        folder: the run's, for messages. checkpoint_path: what a resumed run starts from; None keeps everything in memory.
        isolate: whether a learner that fails (a loss that is not finite, out of memory) ends alone, with its ``failure``
            set, instead of ending the loop. When all have failed the loop ends with the last one's error.
        samples: what samples are called in messages.
    """

    def __init__(
        self,
        *,
        learners: Sequence[Learner],
        lesson: Lesson,
        batches: Batches,
        validation: Callable[[], Iterable[Batch]] | None,
        settings: RunSettings,
        accelerator: Accelerator,
        judge: Judge | None = None,
        folder: Path | None = None,
        checkpoint_path: Path | None = None,
        isolate: bool = False,
        samples: str = "images",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.learners, self.lesson = list(learners), lesson
        self.batches, self.validation, self.judge, self.settings = batches, validation, judge, settings
        self.accelerator, self.isolate, self.callbacks = accelerator, isolate, list(callbacks)
        self.samples, self.folder, self.checkpoint_path = samples, folder, checkpoint_path
        self.device: torch.device = accelerator.device
        self.position, self.stop = Position(), False
        self.seconds = 0.0
        _check_together(self.learners, accelerator)

    # -- what it is about ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> list[Learner]:
        """The learners that have not failed."""
        return [learner for learner in self.learners if learner.failure is None]

    @property
    def stages(self) -> list[Stage]:
        """The stages of the first learner, whose epochs are those of all."""
        return self.learners[0].stages

    @property
    def trainable(self) -> Trainable:
        """What trains, where there is one student."""
        return self.learners[0].trainable

    @property
    def shared_seconds(self) -> float:
        """The seconds that belong to no student alone: loading, augmenting and the teacher's answers."""
        return max(0.0, self.seconds - sum(learner.outcome.own_seconds for learner in self.learners))

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end. Raises Interrupted after saving when a signal asks to stop, NonFiniteError on a bad loss."""
        started = time.perf_counter() - self.seconds
        with InterruptGuard() as interrupt, ExitStack() as streams:
            if self.lesson.author is not None:
                streams.callback(self.lesson.author.close)
            if len(self.learners) == 1:  # nobody else draws random numbers between two of its steps
                streams.enter_context(self.learners[0].stream.active())
            self._notify("on_start")
            while self.position.stage < len(self.stages) and not self.stop:
                self._run_stage(self.stages[self.position.stage], interrupt, started)
            self._notify("on_end")

    def _run_stage(self, stage: Stage, interrupt: InterruptGuard, started: float) -> None:
        self._prepare()
        for epoch in range(self.position.epoch, stage.epochs):
            self.lesson.teacher.start_epoch(epoch + 1, stage.epochs)
            for learner in self.active:
                learner.start_epoch(epoch)
            for batch in self.batches.epoch(epoch, start=self.position.batch):
                self.lesson.check(batch, epoch + 1)
                self._step(batch.to(self.device))
                self.position = self.position.after_step()
                self._take_time(started)
                self._after_step(interrupt)
            self._end_epoch(stage, epoch, started)
            if interrupt.requested(self.device, at_boundary=True):
                self._leave(interrupt)
            if self.stop:
                break
        for learner in self.active:
            learner.end_stage()
        self.position = self.position.after_stage()
        self.save()

    def _prepare(self) -> None:
        if self.position.stage:
            # Else Accelerate unscales and holds on to the optimizers of earlier stages too.
            self.accelerator.free_memory()
        if self.settings.compile:
            allow_compiling(len(self.learners))
        first = self._first() if self.accelerator.num_processes > 1 else None
        inside = bool(self.position.epoch or self.position.batch)
        for learner in self.active:
            with learner.stream.active():
                learner.prepare(self.position.stage, first, inside=inside)

    def _first(self) -> tuple[Seen, Signals]:
        seen = Seen(next(iter(self.batches.epoch(0))).to(self.device))
        return seen, self.lesson.ask(seen)

    def _take_time(self, started: float) -> None:
        self.seconds = time.perf_counter() - started
        for learner in self.active:
            learner.outcome.seconds = self.seconds

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        batch = self._written(batch)
        step_in_stage = self.position.epoch * len(self.batches) + self.position.batch
        for learner in self.active:
            learner.begin_step(step_in_stage)
        predictions = batch.predictions
        everywhere = mean_over_processes(predictions)
        for seen, teacher, last in self.lesson.parts(batch):
            share = seen.batch.predictions / everywhere
            for learner in self.active:
                with self._alone(learner):
                    learner.learn(seen, teacher, share, last=last, adversary=self.lesson.adversary)
                    if last:
                        learner.apply(predictions, self.position.step)

    def _written(self, batch: Batch) -> Batch:
        author = self.lesson.author
        if author is None:
            return batch
        position, stage = self.position, self.stages[self.position.stage]
        done = position.epochs(len(self.batches)) / stage.epochs
        # One answer takes more passes than another, so that no pass may wait for the other processes.
        with self.accelerator.autocast(), whole_parameters(self.trainable):
            return author.write(batch, position.step, done)

    @contextmanager
    def _alone(self, learner: Learner) -> Iterator[None]:
        """Inside the block a learner draws its own random numbers, and where learners are isolated its failure is its own."""
        try:
            with learner.stream.active():
                yield
        except (NonFiniteError, torch.OutOfMemoryError) as error:
            text = f"{error}{self.lesson.blame()}" if isinstance(error, NonFiniteError) else f"out of memory: {error}"
            if not self.isolate or self.accelerator.num_processes > 1 or len(self.active) == 1:
                raise NonFiniteError(text) if isinstance(error, NonFiniteError) else error from None
            learner.fail(Failure(text, self.position.step, now()))
            self._notify("on_failure", learner)

    # -- between steps -------------------------------------------------------------------------------------------------

    def _after_step(self, interrupt: InterruptGuard) -> None:
        step, settings = self.position.step, self.settings
        if step % settings.log_steps == 0:
            self._log()
        inside = self.position.batch < len(self.batches)
        if inside and settings.checkpoint_steps and step % settings.checkpoint_steps == 0:
            self.save()
        if inside and interrupt.requested(self.device, at_boundary=step % settings.log_steps == 0):
            self._leave(interrupt)

    def _log(self) -> None:
        merged: dict[str, float] = {}
        self.lesson.teacher.check()
        for learner in self.active:
            with self._alone(learner):
                metrics = learner.metrics(self.position.step)
                if self.lesson.author is not None:
                    metrics |= self.lesson.author.take()
                self._record(learner, "train", metrics)
                merged |= self._named(learner, metrics)
        if merged:
            self._notify("on_log", merged)

    def _end_epoch(self, stage: Stage, epoch: int, started: float) -> None:
        self._log()
        self.position = self.position.after_epoch()
        last = epoch + 1 == stage.epochs
        merged: dict[str, float] = {}
        if self.validation is not None and (last or (epoch + 1) % self.settings.validate_epochs == 0):
            scored, judgements = self.evaluate(self.validation())
            for learner, result, judged in zip(self.active, scored, judgements, strict=True):
                with self._alone(learner):
                    if isinstance(result, NonFiniteError):
                        raise result
                    if isinstance(judged, NonFiniteError):
                        raise judged
                    learner.remember(result, judged, epoch + 1, final=self.position.stage == len(self.stages) - 1)
                    metrics = {"accuracy": result.accuracy, "nll": result.nll, **(judged or {})}
                    self._take_time(started)
                    self._record(learner, "validation", metrics)
                    merged |= self._named(learner, metrics)
        self._notify("on_epoch", merged)
        if not last and (epoch + 1) % self.settings.checkpoint_epochs == 0:
            self.save()

    def evaluate(self, batches: Iterable[Batch]) -> tuple[list[Score | NonFiniteError], list[Judged | NonFiniteError]]:
        """Score and judge each active learner's student (its moving average when there is one) in eval mode, in one pass."""
        return evaluate(self.active, batches, self.judge, self.accelerator)

    def _record(self, learner: Learner, split: str, metrics: dict[str, float]) -> None:
        if metrics:
            learner.on_metrics({**self.position.told(split, len(self.batches), self.seconds), **metrics})

    def _named(self, learner: Learner, metrics: dict[str, float]) -> dict[str, float]:
        if len(self.learners) == 1:
            return metrics
        return {f"{learner.name}/{name}": value for name, value in metrics.items()}

    def _notify(self, event: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _leave(self, interrupt: InterruptGuard) -> None:
        self.save()
        raise Interrupted(interrupt.number, self.position.step, self.folder)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint_path is None:
            return
        for learner in self.active:
            with self._alone(learner):
                # A loss that is not finite must not reach the last good checkpoint.
                learner.check_finite(self.position.step)
        state = {
            "position": asdict(self.position),
            "seconds": self.seconds,
            "learners": {learner.name: learner.state() for learner in self.learners},
        }
        if self.accelerator.is_main_process:
            save_checkpoint(state, self.checkpoint_path)
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Take up the run where its checkpoint left it. False when there is no checkpoint yet."""
        path = self.checkpoint_path
        if path is None or not path.exists():
            return False
        state = load_checkpoint(path)
        if set(state["learners"]) != {learner.name for learner in self.learners}:
            raise RunFolderError(f"the checkpoint {path} is of other students: {', '.join(state['learners'])}.")
        self.position, self.seconds = Position(**state["position"]), state["seconds"]
        for learner in self.learners:
            learner.load_state(state["learners"][learner.name], trained=self.position.stage == len(self.stages))
        return True


def _check_together(learners: Sequence[Learner], accelerator: Accelerator) -> None:
    plans = {tuple(stage.epochs for stage in learner.stages) for learner in learners}
    if len(plans) > 1:
        raise SettingError(f"students that share a pass need the same epochs in each stage, got {sorted(plans)}.")
    if len(learners) > 1 and accelerator.scaler is not None:
        raise SettingError(
            "several students share a pass in 'fp32' or 'bf16': in 'fp16' each would need a scale of its own."
        )

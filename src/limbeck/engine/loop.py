"""The training loop: one for every task, teacher and objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.engine.callbacks import Callback
from limbeck.engine.checkpoint import load_checkpoint, random_states, restore_random_states, save_checkpoint
from limbeck.engine.ema import MovingAverage
from limbeck.engine.interrupt import Interrupted, InterruptGuard
from limbeck.engine.meter import Meter
from limbeck.engine.optimizer import Schedule, base_lr, make_optimizer
from limbeck.engine.probe import unused_parameters
from limbeck.engine.runtime import (
    load_whole_state,
    set_state_dicts,
    sharded,
    state_dicts,
    stepping,
    whole_parameters,
    whole_state,
)
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import NonFiniteError, SettingError, SignalError
from limbeck.evaluate.accuracy import Score, score
from limbeck.signals import Batch, Batches, Signals
from limbeck.taps import evaluating, logits_of
from limbeck.tasks.vision import VisionTask
from limbeck.teachers.frozen import Teacher

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """Where a run is: ``batch`` batches of ``epoch`` of ``stage`` are done; ``step`` counts all optimizer steps."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass
class Outcome:
    """What a run has found so far. Accuracies are of the validation split, None without one."""

    last_accuracy: float | None = None
    best_accuracy: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0


class Loop:
    """Trains a :class:`Trainable` through its stages.

    Each step: the teacher and the student see the same view; the active objective's terms are summed; the optimizer steps.
    Nothing in the step waits for the device: terms are summed there and fetched every ``log_steps`` steps (on the CPU, where
    looking is free, every step is checked for NaN).

    Args:
        trainable: student and objectives, already built.
        validation: makes the validation batches, or None.
        classes: how many the networks tell apart, to check labels against; None for no check.
        folder: where checkpoints go; None keeps everything in memory.
        on_metrics: called with each record of metrics, as is written to ``metrics.jsonl``.
    """

    def __init__(
        self,
        *,
        trainable: Trainable,
        stages: Sequence[Stage],
        teacher: Teacher,
        task: VisionTask,
        batches: Batches,
        validation: Callable[[], Iterable[Batch]] | None,
        settings: RunSettings,
        accelerator: Accelerator,
        classes: int | None = None,
        folder: Path | None = None,
        on_metrics: Callable[[dict[str, Any]], None] = lambda record: None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.trainable, self.stages, self.teacher, self.task = trainable, list(stages), teacher, task
        self.batches, self.validation, self.settings, self.classes = batches, validation, settings, classes
        self.accelerator, self.folder, self.on_metrics, self.callbacks = (
            accelerator,
            folder,
            on_metrics,
            list(callbacks),
        )
        self.device: torch.device = accelerator.device
        self.position, self.outcome, self.stop = Position(), Outcome(), False
        self.batch: Batch | None = None
        self.schedules = [self._schedule(stage) for stage in self.stages]
        if settings.ema and trainable.new_classifier is not None:
            raise SettingError(
                f"ema averages the student alone, and '{trainable.objectives[-1]}' gives it a new classifier."
            )
        self.ema = MovingAverage(trainable.student, settings.ema) if settings.ema else None
        self.meter = Meter(self.device)
        self.best_state: dict[str, Tensor] | None = None
        self.kept_state: dict[str, Tensor] = {}
        self.rebuilt: nn.Module | None = None
        self._resumed: dict[str, Any] | None = None

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Train to the end. Raises Interrupted after saving when a signal asks to stop, NonFiniteError on a bad loss."""
        started = time.perf_counter() - self.outcome.seconds
        with InterruptGuard() as interrupt:
            self._notify("on_start")
            while self.position.stage < len(self.stages) and not self.stop:
                self._run_stage(self.stages[self.position.stage], interrupt, started)
            self._notify("on_end")
        return self.outcome

    def _run_stage(self, stage: Stage, interrupt: InterruptGuard, started: float) -> None:
        self._prepare(stage)
        for epoch in range(self.position.epoch, stage.epochs):
            self.model.train()
            self.trainable.objective.start_epoch(epoch + 1)
            for batch in self.batches.epoch(epoch, start=self.position.batch):
                self._check_labels(batch)
                self._step(batch.to(self.device))
                self.position = replace(self.position, batch=self.position.batch + 1, step=self.position.step + 1)
                self.outcome.seconds = time.perf_counter() - started
                self._after_step(interrupt)
            self._end_epoch(stage, epoch, started)
            if interrupt.requested(self.device, at_boundary=True):
                self._leave(interrupt)
            if self.stop:
                break
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.position = replace(self.position, stage=self.position.stage + 1, epoch=0, batch=0)
        self.save()

    def _prepare(self, stage: Stage) -> None:
        self.trainable.activate(self.position.stage)
        lr = stage.lr or base_lr(self.settings)
        settings = self.settings
        optimizer = make_optimizer(self.trainable, settings, lr)
        self.lr = lr
        self.schedule = self.schedules[self.position.stage]
        # Else Accelerate unscales and holds on to the optimizers of earlier stages too.
        self.accelerator.free_memory()
        if self.accelerator.num_processes > 1:
            unused = unused_parameters(self.trainable, self.task, self.teacher, self._first_batch())
            self.accelerator.ddp_handler.find_unused_parameters = bool(unused)
        if settings.compile:
            self.trainable.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.trainable, optimizer)
        self.stepper = stepping(self.accelerator, self.optimizer)
        if sharded(self.model) and (self.ema is not None or len(self.stages) > 1):
            raise SettingError("ema and stages are for whole parameters; leave them out, or use DDP instead of FSDP.")
        if self._resumed is not None:
            self._restore(self._resumed)
            self._resumed = None

    def _restore(self, state: dict[str, Any]) -> None:
        # A checkpoint at the start of a stage holds the optimizer of the stage before.
        inside = self.position.epoch or self.position.batch
        set_state_dicts(self.model, self.optimizer, state["model"], state["optimizer"] if inside else None)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        restore_random_states(state["random"])

    def _schedule(self, stage: Stage) -> Schedule:
        settings = self.settings
        return Schedule(
            stage.schedule or settings.schedule,
            epochs=stage.epochs,
            steps=len(self.batches),
            milestones=settings.milestones,
            gamma=settings.gamma,
            warmup_epochs=settings.warmup_epochs,
        )

    def _first_batch(self) -> Batch:
        return next(iter(self.batches.epoch(0))).to(self.device)

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        step_in_stage = self.position.epoch * len(self.batches) + self.position.batch
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule.factor(step_in_stage)
        parts = self._micro_batches(batch)
        totals: dict[str, Tensor] = {}
        correct = torch.zeros((), device=self.device)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                terms, right = self._forward_backward(part, len(part) / len(batch))
            totals = {name: totals[name] + value if totals else value for name, value in terms.items()}
            correct += right
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.meter.add(totals, correct, len(batch), self.position.step)
        self.batch = batch
        if self.device.type == "cpu" and self.accelerator.num_processes == 1:
            self._finite(self.meter.check)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        self.trainable.objective.after_step()
        if self.ema is not None:
            self.ema.update(self.trainable.student)

    def _check_labels(self, batch: Batch) -> None:
        # On another device looking would mean waiting for it; what comes from loaders is still on the CPU here.
        if self.classes is None or batch.labels.device.type != "cpu" or not batch.labels.numel():
            return
        low, high = int(batch.labels.min()), int(batch.labels.max())
        if low < 0 or high >= self.classes:
            wrong = low if low < 0 else high
            raise SignalError(
                f"a batch of epoch {self.position.epoch + 1} has the label {wrong}, and the networks tell {self.classes} "
                f"classes apart: labels are 0 to {self.classes - 1}."
            )

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        if self.settings.accumulation == 1:
            return [batch]
        size = math.ceil(len(batch) / self.settings.accumulation)
        return [batch[start : start + size] for start in range(0, len(batch), size)]

    def _forward_backward(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], Tensor]:
        self.trainable.objective.check_batch_size(len(batch))
        student_input, teacher_input = self.task.inputs(batch)
        with self.accelerator.autocast():
            teacher: Signals = self.teacher.signals(teacher_input, batch)
        terms, logits = self.model(student_input, teacher, batch)
        terms = {name: share * value for name, value in terms.items()}
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        right = (
            (logits.argmax(dim=-1) == batch.labels).sum() if logits is not None else torch.zeros_like(batch.labels[0])
        )
        return {name: value.detach() for name, value in terms.items()}, right

    def _finite(self, read: Callable[[], T]) -> T:
        """Read the meter; when a term was not finite, save what there is to look at and say so."""
        try:
            return read()
        except NonFiniteError as error:
            text = str(error) + self._blame_teacher()
            if self.folder is not None:
                path = self.folder / f"nonfinite-step-{self.position.step}.pt"
                state = {"batch": None if self.batch is None else asdict(self.batch), **self._state()}
                if self.accelerator.is_main_process:
                    save_checkpoint(state, path)
                text += f" The weights and the last batch are saved in {path}."
            raise NonFiniteError(f"{text} A lower learning rate, clip_norm=1 or precision=fp32 often helps.") from None

    def _blame_teacher(self) -> str:
        if self.batch is None:
            return ""
        teacher = self.teacher.signals(self.task.teacher_input(self.batch), self.batch)
        bad = [name for name, value in teacher.tensors().items() if not bool(value.isfinite().all())]
        return f" The teacher's {' and '.join(bad)} are not finite for the last batch." if bad else ""

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
        metrics = self._finite(self.meter.fetch)
        if not metrics:
            return
        with whole_parameters(self.trainable):
            metrics |= {name: float(value) for name, value in self.trainable.objective.monitors().items()}
        metrics["lr"] = float(self.optimizer.param_groups[0]["lr"])
        self._record("train", metrics)
        self._notify("on_log", metrics)

    def _end_epoch(self, stage: Stage, epoch: int, started: float) -> None:
        self._log()
        self.position = replace(self.position, epoch=epoch + 1, batch=0)
        last = epoch + 1 == stage.epochs
        metrics: dict[str, float] = {}
        if self.validation is not None and (last or (epoch + 1) % self.settings.validate_epochs == 0):
            result = self.evaluate(self.validation())
            metrics = {"accuracy": result.accuracy, "nll": result.nll}
            self._remember(result)
            self.outcome.seconds = time.perf_counter() - started
            self._record("validation", metrics)
        self._notify("on_epoch", metrics)
        if not last and (epoch + 1) % self.settings.checkpoint_epochs == 0:
            self.save()

    def _remember(self, result: Score) -> None:
        self.outcome.last_accuracy = result.accuracy
        # Only the last stage makes the result; an earlier one may not even train the classifier.
        final = self.position.stage == len(self.stages) - 1
        if final and (self.outcome.best_accuracy is None or result.accuracy > self.outcome.best_accuracy):
            self.outcome.best_accuracy, self.outcome.best_epoch = result.accuracy, self.position.epoch
            if self.settings.select == "best":
                self.best_state = self.student_state()

    def _record(self, split: str, metrics: dict[str, float]) -> None:
        position = {"split": split, "step": self.position.step, "stage": self.position.stage}
        epoch = self.position.epoch + self.position.batch / max(1, len(self.batches))
        self.on_metrics({**position, "epoch": round(epoch, 4), "seconds": round(self.outcome.seconds, 3), **metrics})

    def _notify(self, event: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _leave(self, interrupt: InterruptGuard) -> None:
        self.save()
        raise Interrupted(interrupt.number, self.position.step, self.folder)

    # -- the student ---------------------------------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Score the student (its moving average when there is one) in eval mode."""
        with self._averaged(), whole_parameters(self.trainable), evaluating(self.trainable):
            self._share_buffers()
            return score(self.predict, batches)

    def _share_buffers(self) -> None:
        # Each process has batch statistics of its own; the first one's are kept, so they are what is scored.
        if self.accelerator.num_processes > 1 and not sharded(self.trainable):
            for buffer in self.trainable.student.buffers():
                dist.broadcast(buffer, 0)

    def _averaged(self) -> Any:
        return self.ema.in_place_of(self.trainable.student) if self.ema is not None else nullcontext()

    def predict(self, batch: Batch) -> Tensor:
        """The student's logits (B, C) for a batch, in the run's precision."""
        with self.accelerator.autocast():
            inputs = self.task.student_input(batch.to(self.device))
            return self.trainable.logits(inputs) if self.rebuilt is None else logits_of(self.rebuilt(inputs))

    def student_state(self) -> dict[str, Tensor]:
        """The student's weights as they would be kept now, on the CPU: its moving average when there is one."""
        with self._averaged():
            return {
                prefix + name: value
                for prefix, module in self.trainable.kept().items()
                for name, value in whole_state(module).items()
            }

    def finish(self) -> nn.Module:
        """Put the selected weights (best or last) into the student and return it in eval mode."""
        self.kept_state = self.best_state if self.best_state is not None else self.student_state()
        for prefix, module in self.trainable.kept().items():
            own = {key.removeprefix(prefix): value for key, value in self.kept_state.items() if key.startswith(prefix)}
            load_whole_state(module, own)
        self._share_buffers()
        network = self.trainable.release()
        self.rebuilt = network if self.trainable.new_classifier is not None else None
        return network

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @property
    def checkpoint_path(self) -> Path | None:
        """The checkpoint a resumed run starts from."""
        return None if self.folder is None else self.folder / "checkpoints" / "last.pt"

    def save(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint_path is None:
            return
        # A loss that is not finite must not reach the last good checkpoint.
        self._finite(self.meter.check_everywhere)
        state = self._state()
        if self.accelerator.is_main_process:
            save_checkpoint(state, self.checkpoint_path)
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        model, optimizer = state_dicts(self.model, self.optimizer)
        scaler = self.accelerator.scaler
        return {
            "model": model,
            "optimizer": optimizer,
            "scaler": None if scaler is None else scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "random": random_states(),
            "position": asdict(self.position),
            "outcome": asdict(self.outcome),
            "best": self.best_state,
            "meter": self.meter.state_dict(),
        }

    def resume(self) -> bool:
        """Take up the run where its checkpoint left it. False when there is no checkpoint yet."""
        path = self.checkpoint_path
        if path is None or not path.exists():
            return False
        state = load_checkpoint(path)
        self.position, self.outcome = Position(**state["position"]), Outcome(**state["outcome"])
        self.best_state = state["best"]
        self.meter.load_state_dict(state["meter"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.position.stage == len(self.stages):
            self.trainable.load_state_dict(state["model"])
        else:
            self._resumed = state
        return True

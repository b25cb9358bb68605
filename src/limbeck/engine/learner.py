"""One student on its way: what trains, with its own optimizer, schedule, moving average, meter and findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.engine.adversary import Adversary
from limbeck.engine.checkpoint import every_process, of_this_process, save_checkpoint
from limbeck.engine.meter import Meter
from limbeck.engine.optimizer import base_lr, clip_gradients, make_optimizer, schedule_of
from limbeck.engine.probe import unused_parameters
from limbeck.engine.runtime import (
    set_state_dicts,
    sharded,
    state_dicts,
    stepping,
    whole_parameters,
    whole_state,
)
from limbeck.engine.selection import Outcome, Selection
from limbeck.engine.stopwatch import Stopwatch
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import Failure, NonFiniteError, SettingError
from limbeck.evaluate.accuracy import Score
from limbeck.matching import Names
from limbeck.random_state import RandomState, RandomStream
from limbeck.signals import Batch, Signals
from limbeck.taps import evaluating, logits_of
from limbeck.tasks.base import Seen, Task

T = TypeVar("T")


class Learner:
    """A :class:`Trainable` with everything that belongs to its training alone.

    Several of them can share a pass over the data and the teacher's answers: what one does never depends on the others.

    Args:
        name: tells it apart from others of the same loop.
        trainable: student and objectives, already built. stages: those that it was made for.
        task: how the student sees a batch. names: what its objectives call the teacher's maps.
        steps: batches of an epoch.
        random: the random numbers that its training draws, such as dropout's.
        folder: where a non-finite state is kept to look at; None keeps none.
        on_metrics: called with each record of metrics, as is written to ``metrics.jsonl``.
    """

    def __init__(
        self,
        *,
        name: str,
        trainable: Trainable,
        stages: Sequence[Stage],
        task: Task,
        names: Names,
        settings: RunSettings,
        accelerator: Accelerator,
        steps: int,
        random: RandomState,
        folder: Path | None = None,
        on_metrics: Callable[[dict[str, Any]], None] = lambda record: None,
    ) -> None:
        self.name, self.trainable, self.stages, self.task, self.names = name, trainable, list(stages), task, names
        self.settings, self.accelerator, self.folder, self.on_metrics = settings, accelerator, folder, on_metrics
        self.device: torch.device = accelerator.device
        self.stream = RandomStream(random)
        self.schedules = [schedule_of(stage, settings, steps) for stage in self.stages]
        self.selection = Selection(trainable, settings)
        self.meter, self.stopwatch = Meter(self.device), Stopwatch(self.device)
        self.kept_state: dict[str, Tensor] = {}
        self.rebuilt: nn.Module | None = None
        self.failure: Failure | None = None
        self.batch: Batch | None = None
        self._resumed: dict[str, Any] | None = None

    @property
    def terms(self) -> list[str]:
        """Names of the terms of the last step's loss."""
        return self.meter.names

    @property
    def outcome(self) -> Outcome:
        """What was found so far."""
        return self.selection.outcome

    # -- training ------------------------------------------------------------------------------------------------------

    def prepare(self, stage: int, first: tuple[Seen, Signals] | None, *, inside: bool) -> None:
        """Make ready for a stage: what trains, its optimizer, DDP or FSDP around it, and a checkpoint's state in it.

        ``first``: a batch and the teacher's answer to it, where there are several processes. ``inside``: whether the
        stage goes on from its middle.
        """
        settings = self.settings
        self.trainable.activate(stage)
        self.lr = self.stages[stage].lr or base_lr(settings)
        self.schedule = self.schedules[stage]
        optimizer = make_optimizer(self.trainable, settings, self.lr)
        if first is not None:
            seen, teacher = first
            unused = unused_parameters(self.trainable, seen.by(self.task), teacher.renamed(self.names), seen.batch)
            self.accelerator.ddp_handler.find_unused_parameters = bool(unused)
        if settings.compile:
            self.trainable.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.trainable, optimizer)
        self.stepper = stepping(self.accelerator, self.optimizer)
        if sharded(self.model) and (self.selection.averages or len(self.stages) > 1):
            raise SettingError("ema and stages are for whole parameters; leave them out, or use DDP instead of FSDP.")
        if sharded(self.model) and "attack" in self.stages[stage].objective.needs:
            raise SettingError(
                f"'{self.stages[stage].objective}' attacks with whole parameters; use DDP instead of FSDP."
            )
        if sharded(self.model) and self.trainable.adapted:
            raise SettingError(
                "student_lora is for whole parameters, into which adapters are added; use DDP, not FSDP."
            )
        self.trainable.objective.set_epochs(self.stages[stage].epochs)
        if self._resumed is not None:
            self._restore(self._resumed, inside)
            self._resumed = None

    def start_epoch(self, epoch: int) -> None:
        """Make ready for an epoch, counted from 0."""
        self.model.train()
        self.trainable.objective.start_epoch(epoch + 1)

    def end_stage(self) -> None:
        """Take the module out of what the runtime put around it."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def begin_step(self, step_in_stage: int) -> None:
        """Set the learning rate and forget the sums of the step before."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule.factor(step_in_stage)
        self._terms: dict[str, Tensor] = {}
        self._correct = torch.zeros((), device=self.device)

    def learn(
        self, seen: Seen, teacher: Signals, share: float | Tensor, *, last: bool, adversary: Adversary | None = None
    ) -> None:
        """Forward and backward on a micro-batch, which counts as this ``share`` of the step; ``last`` of the step's.

        ``adversary`` attacks the teacher where the objective asks for it.
        """
        batch = seen.batch
        self.trainable.objective.check_batch_size(len(batch))
        self.batch = batch
        with self.stopwatch, nullcontext() if last else self.accelerator.no_sync(self.model):
            inputs, teacher, batch = self._attacked(seen, teacher.renamed(self.names), adversary)
            terms, logits = self.model(inputs, teacher, batch)
            terms = {name: share * value for name, value in terms.items()}
            self.accelerator.backward(torch.stack(list(terms.values())).sum())
            for name, value in terms.items():
                value = value.detach()
                self._terms[name] = self._terms[name] + value if name in self._terms else value
            if logits is not None:
                self._correct += (logits.argmax(dim=-1) == batch.labels).sum()

    def _attacked(self, seen: Seen, teacher: Signals, adversary: Adversary | None) -> tuple[Any, Signals, Batch]:
        """What the student sees, the teacher's signals and the batch, with attacked images where they are asked for."""
        inputs, attack = seen.by(self.task), self.trainable.objective.attack
        if attack is None or adversary is None:
            return inputs, teacher, seen.batch
        with evaluating(self.trainable), torch.no_grad(), self.accelerator.autocast():
            ours = self.trainable.logits(inputs)
        images, batch, teacher = adversary.attacked(attack, seen.batch, teacher, ours)
        return torch.cat([inputs, self.task.inputs(replace(batch, inputs=images))]), teacher, batch

    def apply(self, predictions: int | Tensor, step: int) -> None:
        """The optimizer's step, for ``predictions`` that were learnt; ``step`` is its number.

        On the CPU of one process, where looking is free, raises NonFiniteError for a term that is not finite.
        """
        with self.stopwatch:
            self.trainable.shield()
            if self.settings.clip_norm is not None:
                clip_gradients(self.model, self.trainable.apart(), self.settings.clip_norm, self.accelerator)
            self.meter.add(self._terms, self._correct, predictions, step)
            if self.device.type == "cpu" and self.accelerator.num_processes == 1:
                self._finite(self.meter.check, step)
            self.stepper.step()
            self.stepper.zero_grad(set_to_none=True)
            self.trainable.objective.after_step()
            self.selection.after_step()

    def metrics(self, step: int) -> dict[str, float]:
        """Means since the last call, fetched from the device; empty before any step. Raises NonFiniteError."""
        found = self._finite(self.meter.fetch, step)
        self.outcome.own_seconds += self.stopwatch.take()
        if found:
            with whole_parameters(self.trainable):
                found |= {name: float(value) for name, value in self.trainable.objective.monitors().items()}
            found["lr"] = float(self.optimizer.param_groups[0]["lr"])
        return found

    def check_finite(self, step: int) -> None:
        """Raise NonFiniteError if any process has met a term that is not finite; every process calls it at the same step."""
        self._finite(self.meter.check_everywhere, step)

    def fail(self, failure: Failure) -> None:
        """End this student's training; its memory is given back."""
        self.failure = failure
        self.batch = None
        self.selection.forget()
        for part in ("model", "optimizer", "stepper"):
            self.__dict__.pop(part, None)
        self.trainable.zero_grad(set_to_none=True)
        self.trainable.to("cpu")

    def _finite(self, read: Callable[[], T], step: int) -> T:
        """Read the meter; when a term was not finite, save what there is to look at and say so."""
        try:
            return read()
        except NonFiniteError as error:
            text = str(error)
            if self.folder is not None:
                path = self.folder / f"nonfinite-step-{step}.pt"
                state = {"batch": None if self.batch is None else asdict(self.batch), **self.state()}
                if self.accelerator.is_main_process:
                    save_checkpoint(state, path)
                text += f" The weights and the last batch are saved in {path}."
            raise NonFiniteError(f"{text} A lower learning rate, clip_norm=1 or precision=fp32 often helps.") from None

    # -- the student ---------------------------------------------------------------------------------------------------

    def remember(self, result: Score, judged: dict[str, float] | None, epoch: int, *, final: bool) -> None:
        """Take in a validation's result; ``final`` for the last stage, which alone makes the result."""
        self.outcome.own_seconds += self.stopwatch.take()
        self.selection.remember(result, judged, epoch, final=final)

    def share_buffers(self) -> None:
        """Give every process the first one's batch statistics: each has its own, and one of them is scored and kept."""
        if self.accelerator.num_processes > 1 and not sharded(self.trainable):
            for buffer in self.trainable.student.buffers():
                dist.broadcast(buffer, 0)

    def predict(self, batch: Batch) -> Tensor:
        """The student's logits (B, C) for a batch, in the run's precision."""
        with self.stopwatch, self.accelerator.autocast():
            inputs = self.task.inputs(batch.to(self.device))
            return self.trainable.logits(inputs) if self.rebuilt is None else logits_of(self.rebuilt(inputs))

    def finish(self) -> nn.Module:
        """Put the selected weights (best or last) into the student and return it in eval mode."""
        self.kept_state = self.selection.settle()
        self.share_buffers()
        network = self.trainable.release()
        if self.trainable.adapted:
            self.kept_state = whole_state(network)
        self.rebuilt = network if self.trainable.new_classifier is not None else None
        return network

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that its training needs to go on, as tensors and plain values."""
        if self.failure is not None:
            return {"failure": asdict(self.failure), "outcome": asdict(self.outcome)}
        model, optimizer = state_dicts(self.model, self.optimizer)
        scaler = self.accelerator.scaler
        return {
            "failure": None,
            "model": model,
            "optimizer": optimizer,
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": every_process(self.stream.state.as_plain()),
            **self.selection.state(),
            "meter": self.meter.state_dict(),
        }

    def load_state(self, state: dict[str, Any], *, trained: bool) -> None:
        """Take up what :meth:`state` gave; ``trained`` when all stages are done, and else :meth:`prepare` must follow."""
        self.selection.outcome = Outcome(**state["outcome"])
        if state["failure"] is not None:
            self.fail(Failure(**state["failure"]))
            return
        self.selection.load_state(state)
        self.meter.load_state_dict(state["meter"])
        if trained:
            self.trainable.load_state_dict(state["model"])
        else:
            self._resumed = state

    def _restore(self, state: dict[str, Any], inside: bool) -> None:
        # A checkpoint at the start of a stage holds the optimizer of the stage before.
        set_state_dicts(self.model, self.optimizer, state["model"], state["optimizer"] if inside else None)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.stream.state = RandomState.from_plain(of_this_process(state["random"]))

"""What the students of a pass learn from in a step: a batch, and what the teacher says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from limbeck.distributed import world_size
from limbeck.engine.adversary import Adversary
from limbeck.errors import SignalError
from limbeck.signals import Batch, Signals, not_finite
from limbeck.tasks.base import Seen, Task
from limbeck.teachers.frozen import Teacher


class Author(Protocol):
    """Writes the texts of a step; see ``limbeck.authoring``."""

    def write(self, batch: Batch, step: int, progress: float) -> Batch:
        """The batch with other texts in it; ``progress`` is how much of the stage is over, in [0, 1]."""
        ...

    def take(self) -> dict[str, float]:
        """Figures of what was written since the last call."""
        ...

    def close(self) -> None:
        """Give back what was held to write with."""
        ...


class Lesson:
    """A teacher, and how it is asked: once about each micro-batch, however many students learn from the answer.

    Args:
        task: how the teacher sees a batch.
        accumulation: micro-batches of a step.
        author: writes the texts that teacher and student see, where these are not the data's; for one student alone.
        adversary: attacks the teacher for objectives that ask for it.
        classes: how many the networks tell apart, to check labels against; None for no check.
    """

    def __init__(
        self,
        teacher: Teacher,
        task: Task,
        accelerator: Accelerator,
        *,
        accumulation: int = 1,
        author: Author | None = None,
        adversary: Adversary | None = None,
        classes: int | None = None,
    ) -> None:
        self.teacher, self.author, self.adversary = teacher, author, adversary
        self._task, self._accelerator, self._accumulation, self._classes = task, accelerator, accumulation, classes
        self._last: Batch | None = None

    def check(self, batch: Batch, epoch: int) -> None:
        """Raise SignalError for a label that is none of the classes; ``epoch``, counted from 1, is for the message."""
        # On another device looking would mean waiting for it; what comes from loaders is still on the CPU here.
        if self._classes is None or batch.labels.device.type != "cpu" or not batch.labels.numel():
            return
        labels = batch.labels[batch.learnt] if batch.labels.ndim > 1 else batch.labels
        if not labels.numel():
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self._classes:
            wrong = low if low < 0 else high
            raise SignalError(
                f"a batch of epoch {epoch} has the label {wrong}, and the networks tell {self._classes} classes apart: labels "
                f"are 0 to {self._classes - 1}."
            )

    def parts(self, batch: Batch) -> Iterator[tuple[Seen, Signals, bool]]:
        """The micro-batches of a step in turn, with the teacher's answer to each, and whether it is the last."""
        self._last = batch
        parts = self._micro_batches(batch)
        for number, part in enumerate(parts, 1):
            seen = Seen(part)
            yield seen, self.ask(seen), number == len(parts)

    def ask(self, seen: Seen) -> Signals:
        """What the teacher says of a batch, in the run's precision."""
        with self._accelerator.autocast():
            inputs = seen.by(self._task) if self.teacher.sees_inputs else seen.batch.inputs
            return self.teacher.signals(inputs, seen.batch)

    def blame(self) -> str:
        """A sentence about what the teacher says of the last batch that is not finite; empty where all of it is."""
        if self._last is None:
            return ""
        teacher = self.ask(Seen(self._last))
        excluded = {"logits": self._last.without_score}
        bad = [name for name, value in teacher.tensors().items() if bool(not_finite(value, excluded.get(name)).any())]
        return f" The teacher's {' and '.join(bad)} are not finite for the last batch." if bad else ""

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        if self._accumulation == 1:
            return [batch]
        samples = len(batch) // batch.copies
        size = math.ceil(samples / self._accumulation)
        return [batch.samples(slice(start, start + size)) for start in range(0, samples, size)]


def mean_over_processes(predictions: int | Tensor) -> int | Tensor:
    """The predictions of a step that a process has on average: as many on each, but where rows of tokens are counted."""
    if isinstance(predictions, int):
        return predictions
    total = predictions.clone()
    if world_size() > 1:
        dist.all_reduce(total)
    # Where nothing is learnt, terms are 0 and so are their gradients, whatever they are divided by.
    return (total / world_size()).clamp(min=1)

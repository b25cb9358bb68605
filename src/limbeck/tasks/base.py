"""What a task is, and a batch as several networks see it."""

from __future__ import annotations

from typing import Any, Protocol

from limbeck.signals import Batch


class Task(Protocol):
    """How a network sees a batch. Tasks that do the same are equal, and hashable."""

    def inputs(self, batch: Batch) -> Any:
        """The batch as the network sees it: a tensor, or a tree of tensors."""
        ...


class Seen:
    """One batch as several networks see it: what is the same for two of them is made once."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._made: dict[Task, Any] = {}

    def by(self, task: Task) -> Any:
        """The batch as a network with this task sees it."""
        if task not in self._made:
            self._made[task] = task.inputs(self.batch)
        return self._made[task]

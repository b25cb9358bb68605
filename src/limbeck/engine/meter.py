"""Sums of the loss terms that stay on the device until somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from limbeck.distributed import world_size
from limbeck.errors import NonFiniteError

_NEVER = torch.iinfo(torch.int64).max


class Meter:
    """Means of terms and of accuracy over steps, without waiting for the device in the step.

    It also remembers, for each term, the first step at which it was NaN or infinite.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self.sums = torch.zeros(len(self.names), device=self.device)
        self.first_bad = torch.full((len(self.names),), _NEVER, device=self.device)
        # Right answers, and answers.
        self.answers = torch.zeros(2, device=self.device)
        self.steps = 0

    def add(self, terms: Mapping[str, Tensor], correct: Tensor, seen: int | Tensor, step: int) -> None:
        """Take in one step: its terms (scalars), how many of ``seen`` predictions were right, and the step's number."""
        if list(terms) != self.names:
            self.names = list(terms)
            self._reset()
        values = torch.stack([value.detach().float() for value in terms.values()])
        self.sums += values
        bad = torch.where(values.isfinite(), _NEVER, step)
        self.first_bad = torch.minimum(self.first_bad, bad)
        self.answers[0] += correct
        self.answers[1] += seen
        self.steps += 1

    def check(self) -> None:
        """Wait for the device and raise NonFiniteError with the term and the step if any was not finite."""
        step, which = (int(value) for value in self.first_bad.min(dim=0)) if self.names else (_NEVER, 0)
        if step != _NEVER:
            raise NonFiniteError(f"the term '{self.names[which]}' became NaN or infinite at step {step}.")

    def check_everywhere(self) -> None:
        """:meth:`check` over all processes; every process must call it at the same step."""
        if self.names and world_size() > 1:
            dist.all_reduce(self.first_bad, op=dist.ReduceOp.MIN)
        self.check()

    def fetch(self) -> dict[str, float]:
        """Wait for the device, return the means since the last fetch, over all processes, and start anew.

        Empty before any step. Every process must call it at the same step.
        """
        if not self.steps:
            return {}
        sums = torch.cat([self.sums, self.answers])
        if world_size() > 1:
            dist.all_reduce(sums)
        self.check_everywhere()
        *totals, correct, seen = sums.tolist()
        means = [total / (self.steps * world_size()) for total in totals]
        metrics = {"loss": sum(means), **dict(zip(self.names, means, strict=True))}
        metrics["train_accuracy"] = correct / max(1, seen)
        self._reset()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for a checkpoint between two fetches."""
        tensors = {"sums": self.sums, "first_bad": self.first_bad, "answers": self.answers}
        return {"names": list(self.names), "steps": self.steps, **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.names, self.steps = list(state["names"]), state["steps"]
        if "answers" not in state:  # of a run that began before tokens were counted too
            state = {
                **state,
                "answers": torch.stack([state["correct"].float().cpu(), torch.tensor(float(state["seen"]))]),
            }
        for name in ("sums", "first_bad", "answers"):
            setattr(self, name, state[name].to(self.device))

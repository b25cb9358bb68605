"""Optimizer, its parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from limbeck.config import RunSettings
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import SettingError

_DEFAULT_LR = {"sgd": 0.05, "adamw": 1e-3}


def base_lr(settings: RunSettings) -> float:
    """The learning rate given, or the optimizer's usual one."""
    return _DEFAULT_LR[settings.optimizer] if settings.lr is None else settings.lr


def parameter_groups(trainable: Trainable, *, weight_decay: float, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """The parameters that ask for a gradient, in one group with weight decay and one without.

    Exempt are those that an objective or network names in ``no_weight_decay``, and, unless ``decay_norm_and_bias``, all with
    fewer than two dimensions (biases, normalisation).
    """
    exempt = trainable.no_weight_decay()
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in trainable.named_parameters():
        if parameter.requires_grad:
            keep = name not in exempt and (decay_norm_and_bias or parameter.ndim > 1)
            (decayed if keep else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(trainable: Trainable, settings: RunSettings, lr: float) -> torch.optim.Optimizer:
    """SGD or AdamW over everything in the module that trains."""
    groups = parameter_groups(
        trainable, weight_decay=settings.weight_decay, decay_norm_and_bias=settings.decay_norm_and_bias
    )
    if not groups:
        raise SettingError(
            "nothing trains in this stage: neither the student nor the objective has a parameter to learn."
        )
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    if settings.nesterov and settings.momentum == 0:
        raise SettingError("nesterov needs a momentum greater than 0.")
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov)


class Schedule:
    """The factor on the learning rate at each step. It has no state, so that a resumed run has nothing to restore.

    Args:
        kind: "multistep" (times ``gamma`` after each milestone), "cosine" (to zero at the end) or "constant".
        epochs: length of the stage, and ``steps``: steps in an epoch.
        milestones: in epochs, or in shares of the stage when below 1.
        warmup_epochs: the factor rises linearly from 1/steps to 1 over them; cosine starts after them.
    """

    def __init__(
        self,
        kind: str,
        *,
        epochs: int,
        steps: int,
        milestones: Sequence[float] = (),
        gamma: float = 0.1,
        warmup_epochs: float = 0.0,
    ) -> None:
        self.total = epochs * steps
        self.warmup = round(warmup_epochs * steps)
        if self.warmup >= self.total and self.warmup:
            raise SettingError(
                f"warmup_epochs is {warmup_epochs} and the stage has {epochs} epochs; warm-up must be shorter."
            )
        # A milestone in epochs falls on an epoch's first step, as in the benchmark's protocol.
        self.milestones = [round(m * epochs if m < 1 else m) * steps for m in milestones]
        self.gamma = gamma
        self.kind = kind

    def factor(self, step: int) -> float:
        """The factor at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.total - self.warmup)))
        if self.kind == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        return 1.0


def schedule_of(stage: Stage, settings: RunSettings, steps: int) -> Schedule:
    """The schedule of a stage: its own, or that of the settings. ``steps``: of an epoch."""
    return Schedule(
        stage.schedule or settings.schedule,
        epochs=stage.epochs,
        steps=steps,
        milestones=settings.milestones,
        gamma=settings.gamma,
        warmup_epochs=settings.warmup_epochs,
    )


def clip_gradients(model: nn.Module, apart: Sequence[nn.Module], norm: float, accelerator: Accelerator) -> None:
    """Clip the gradients of the student with its heads; those of each network ``apart`` from it by a norm of its own."""
    theirs = {id(parameter) for network in apart for parameter in network.parameters()}
    ours = [p for p in model.parameters() if id(p) not in theirs] if apart else model.parameters()
    accelerator.clip_grad_norm_(ours, norm)
    for network in apart:
        nn.utils.clip_grad_norm_(network.parameters(), norm)

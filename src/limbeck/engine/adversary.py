"""Images that lie at the teacher's decision boundary, made for the objectives that ask for them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from limbeck.distributed import world_size
from limbeck.errors import SettingError
from limbeck.evaluate.attacks import boundary
from limbeck.objectives.base import Attack
from limbeck.signals import Batch, Signals
from limbeck.tasks.vision import VisionTask
from limbeck.teachers.frozen import FrozenTeacher


class Adversary:
    """Attacks a teacher with its own gradient.

    Images are attacked before any network's preprocessing, so that each network sees them through its own, in units of the
    teacher's normalisation: a step and the clip are in its standard deviations. They stay float and are not rounded to whole
    pixel values. Autocast is off inside.

    Args:
        teacher, task: the network that is attacked, and how it sees a batch.
    """

    def __init__(self, teacher: FrozenTeacher, task: VisionTask) -> None:
        self.teacher, self.task = teacher, task

    def attacked(self, attack: Attack, batch: Batch, told: Signals, ours: Tensor) -> tuple[Tensor, Batch, Signals]:
        """The attacked images (K, …), the batch that tells which samples they are of, and the teacher's signals with theirs.

        told: the teacher's signals for the batch. ours: the student's logits (B, C) for it. K is ``attack.samples`` over the
        number of processes, at most B. Samples that one of the two gets wrong are not attacked. Nothing waits for the device.
        """
        assert told.logits is not None
        theirs, ours = told.logits.float(), ours.float()
        right = (theirs.argmax(1) == batch.labels) & (ours.argmax(1) == batch.labels)
        apart = (theirs.softmax(1) - ours.softmax(1)).square().sum(1).where(right, -1.0)
        rows = apart.topk(min(len(batch), max(1, attack.samples // world_size()))).indices
        chosen, labels = right[rows], batch.labels[rows]
        others = theirs[rows].scatter(1, labels[:, None], -torch.inf)
        targets = torch.multinomial(others.softmax(1), 1).squeeze(1)
        mean, std = units(self.task)
        # Those that are attacked come first. On the CPU, where looking is free, the others need not be computed.
        count = len(rows) if rows.device.type != "cpu" else int(chosen.sum())
        with torch.autocast(batch.inputs.device.type, enabled=False):
            clean = (_floating(batch.inputs[rows]) - mean) / std
            moved = boundary(
                lambda images: self._logits(images * std + mean),
                clean[:count],
                labels[:count],
                targets[:count],
                steps=attack.steps if count else 0,
                step=attack.step,
                epsilon=attack.epsilon,
                clip=attack.clip,
            )
            # The others stay as they are, so that batch norms see no image that teaches nothing.
            moved = moved.where(chosen[:count].view(-1, *[1] * (clean.ndim - 1)), clean[:count])
            images = torch.cat([moved, clean[count:]]) * std + mean
            with torch.no_grad():
                answers = self._logits(images)
        places = torch.arange(len(rows), device=rows.device).where(chosen, -1)
        places = torch.full_like(batch.labels, -1).scatter(0, rows, places)
        return images, replace(batch, attacked=places), replace(told, attacked=answers[places.clamp(min=0)])

    def _logits(self, images: Tensor) -> Tensor:
        return self.teacher.differentiable(self.task.preprocess(images))


def check_range(attack: Attack, task: VisionTask, batch: Batch) -> None:
    """Raise SettingError where the clip of an attack would change images before anything attacked them."""
    mean, std = units(task)
    images = batch.inputs
    ends = (0.0, 1.0) if images.dtype == torch.uint8 else (float(images.min()), float(images.max()))
    low, high = (
        float(torch.as_tensor((ends[0] - mean) / std).min()),
        float(torch.as_tensor((ends[1] - mean) / std).max()),
    )
    if low < -attack.clip or high > attack.clip:
        enough = math.ceil(10 * max(-low, high)) / 10
        raise SettingError(
            f"the attack cuts what it makes off at ±{attack.clip:g}, and the images reach from {low:.3g} to {high:.3g} in the "
            f"teacher's normalisation: it would change them by itself. Give clip={enough:g} or more, or normalise them "
            "otherwise."
        )


def units(task: VisionTask) -> tuple[Tensor | float, Tensor | float]:
    """Mean and standard deviation of the network's normalisation, for images as they are before it."""
    mean, std = getattr(task.preprocess, "mean", None), getattr(task.preprocess, "std", None)
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        return 0.0, 1.0
    return mean, std


def _floating(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()

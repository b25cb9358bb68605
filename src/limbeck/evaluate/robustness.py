"""How accurate a classifier stays on images that were corrupted, or changed to mislead it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from limbeck.errors import DataError
from limbeck.evaluate.attacks import fgsm, pgd
from limbeck.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from limbeck.evaluate.kinds import Budget, Count, Number, Share
from limbeck.signals import Batch

BUDGETS = (1, 2, 4, 8)
PGD_STEPS = 10
# Attacks start from the pixels themselves and a random place; corruptions of two batches must not be drawn alike.
_SEED = 9176

Answer = Callable[[Tensor], Tensor]
"""From images (B, C, H, W), uint8 or float in [0, 1], to logits (B, C), differentiable; preprocessing is inside."""


@dataclass(frozen=True)
class Corrupted:
    """Accuracy under one corruption: ``mean`` over the severities, and at each of 1 to 5."""

    name: str
    mean: Share
    severities: Annotated[tuple[Share, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Attacked:
    """Accuracy under an attack: no value of a pixel in 0 … 255 changed by more than ``budget``, in ``steps`` steps."""

    name: str
    budget: Budget
    steps: Count
    accuracy: Share


@dataclass(frozen=True)
class Robustness:
    """Accuracies of one network on ``count`` images, all in [0, 1].

    clean: of the same images unchanged. mean_corruption: mean over corruptions and severities. relative: that over clean;
    None where clean is 0. corruptions: limbeck's own, not those of ImageNet-C. attacks: white-box, untargeted, in L∞,
    before normalisation; each network is attacked with its own gradient. cifar_c: on a folder of CIFAR-C, on images of its own;
    None where none was given.
    """

    count: Count
    clean: Share
    mean_corruption: Share
    relative: Number | None
    corruptions: tuple[Corrupted, ...]
    attacks: tuple[Attacked, ...]
    cifar_c: tuple[Corrupted, ...] | None = None


def robustness(
    networks: Mapping[str, Answer],
    batches: Iterable[Batch],
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    budgets: Sequence[float] = BUDGETS,
    steps: int = PGD_STEPS,
) -> dict[str, Robustness]:
    """Figures of each network in one pass over batches of uint8 images; all see the same corrupted pixels.

    corruptions: names in ``CORRUPTIONS``. budgets: of both attacks, in units of 1/255. Networks must be in eval mode.

    Raises:
        DataError: there are no images.
        SettingError: an unknown corruption.
    """
    kinds = [(name, severity) for name in corruptions for severity in SEVERITIES]
    attacks = [(name, budget) for name in _ATTACKS for budget in budgets]
    right = {who: torch.zeros(1 + len(kinds) + len(attacks), dtype=torch.int64) for who in networks}
    count = 0
    for number, batch in enumerate(batches):
        seed = _SEED + number
        found: dict[str, list[Tensor]] = {who: [] for who in networks}
        # One set of changed images at a time is in memory.
        for kind in (None, *kinds):
            images = batch.inputs if kind is None else corrupt(batch.inputs, *kind, seed=seed)
            for who, answer in networks.items():
                found[who].append(_right(answer, images, batch.labels))
        for who, answer in networks.items():
            for name, budget in attacks:
                images = _ATTACKS[name](answer, batch, budget / 255, steps, seed)
                found[who].append(_right(answer, images, batch.labels))
            right[who] += torch.stack(found[who]).cpu()
        count += len(batch)
    if count == 0:
        raise DataError("robustness needs images, and there are none.")
    return {who: _figures(counts / count, count, corruptions, attacks, steps) for who, counts in right.items()}


@torch.no_grad()
def _right(answer: Answer, images: Tensor, labels: Tensor) -> Tensor:
    return (answer(images).argmax(dim=1) == labels).sum()


def _fgsm(answer: Answer, batch: Batch, budget: float, steps: int, seed: int) -> Tensor:
    return fgsm(answer, batch.inputs.float() / 255, batch.labels, budget)


def _pgd(answer: Answer, batch: Batch, budget: float, steps: int, seed: int) -> Tensor:
    return pgd(answer, batch.inputs.float() / 255, batch.labels, budget, steps=steps, seed=seed)


_ATTACKS = {"fgsm": _fgsm, "pgd": _pgd}


def _figures(
    shares: Tensor, count: int, corruptions: Sequence[str], attacks: Sequence[tuple[str, float]], steps: int
) -> Robustness:
    clean, *rest = shares.double().tolist()
    split = len(corruptions) * len(SEVERITIES)
    by_name = [rest[first : first + len(SEVERITIES)] for first in range(0, split, len(SEVERITIES))]
    corrupted = tuple(
        Corrupted(name, sum(values) / len(values), tuple(values))
        for name, values in zip(corruptions, by_name, strict=True)
    )
    mean = sum(rest[:split]) / split if split else clean
    attacked = tuple(
        Attacked(name, budget, steps if name == "pgd" else 1, accuracy)
        for (name, budget), accuracy in zip(attacks, rest[split:], strict=True)
    )
    return Robustness(count, clean, mean, mean / clean if clean else None, corrupted, attacked)

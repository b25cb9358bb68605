"""Training sets made harder on purpose: a long tail of classes, and wrong labels."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.data.seeds import stream
from limbeck.data.stratify import choose
from limbeck.errors import DataError, SettingError, check_number


def check_damage(label_noise: float, imbalance: float) -> None:
    """Raise SettingError unless ``label_noise`` is in [0, 1) and ``imbalance`` is a finite number of at least 1."""
    check_number("label_noise", label_noise, low=0)
    if label_noise >= 1:
        raise SettingError(f"label_noise must be less than 1, got {label_noise!r}.")
    check_number("imbalance", imbalance, low=1)


def long_tail(labels: Tensor, classes: int, imbalance: float, seed: int) -> Tensor:
    """Sorted positions, int64, of a long-tailed part of the samples, the same for the same seed.

    Class c of C keeps n · imbalance^(-c / (C - 1)) samples, in the order of the classes, rounded down as in public code for
    the long-tailed CIFAR of Cui et al. (arXiv 1901.05555), and at least one. n is the most that every class has enough
    samples for: all of the first class where the classes are equally large.

    labels: (N,) int64 in 0 … classes - 1. imbalance: of the largest class to the smallest; 1 leaves all samples.

    Raises:
        SettingError: imbalance is less than 1 or not finite. DataError: a class has no sample.
    """
    check_damage(0, imbalance)
    if imbalance == 1:
        return torch.arange(len(labels))
    sizes = torch.bincount(labels, minlength=classes).tolist()
    if 0 in sizes:
        raise DataError(f"a long tail needs samples of every class, and class {sizes.index(0)} has none.")
    # One seed a class, so that what is drawn of a class does not depend on the others.
    kept = [_some(labels == c, count, seed, c) for c, count in enumerate(_tail(sizes, imbalance))]
    return torch.cat(kept).sort().values


def _tail(sizes: list[int], imbalance: float) -> list[int]:
    steps = [imbalance ** (c / max(1, len(sizes) - 1)) for c in range(len(sizes))]
    largest = int(min(size * step for size, step in zip(sizes, steps, strict=True)))
    return [max(1, min(int(largest / step), size)) for size, step in zip(sizes, steps, strict=True)]


def _some(chosen: Tensor, count: int, *seed: int) -> Tensor:
    positions = chosen.nonzero().flatten()
    return positions[torch.randperm(len(positions), generator=stream(*seed))[:count]]


def wrong_labels(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """The labels, (N,) int64, of which round(share · N) are wrong: symmetric noise, the same for the same seed.

    A wrong label is one of the *other* classes, each as likely, so that ``share`` is what is wrong. (Where papers draw
    from all classes, a share of 1 / classes of those drawn are right again.) The classes lose labels in proportion.

    labels: in 0 … classes - 1. share: in [0, 1).

    Raises:
        SettingError: share is out of range, or there are fewer than two classes.
    """
    check_damage(share, 1)
    if classes < 2:
        raise SettingError(f"wrong labels need at least two classes, got {classes}.")
    chosen = choose(labels, round(share * len(labels)), seed)
    changed = labels.clone()
    changed[chosen] += torch.randint(1, classes, (len(chosen),), generator=stream(seed, 1))
    return changed % classes

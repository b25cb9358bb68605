"""Which classes a classifier gets right, and what it takes the others for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import SignalError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.kinds import Count, Share

_SHOWN = 20
_WHOLE = 50


@dataclass(frozen=True)
class ClassAccuracy:
    """The share in [0, 1] of a class's ``count`` images that are told; None where there is no image."""

    name: str
    count: Count
    accuracy: Share | None


@dataclass(frozen=True)
class Confusion:
    """How many images of class ``label`` were taken for ``prediction``, which is another."""

    label: str
    prediction: str
    count: Count


@dataclass(frozen=True)
class Classification:
    """Figures of a classifier by class.

    top1, top5: shares in [0, 1] of images whose class is the first, or among the first five. balanced: mean of the classes'
    accuracies, over those that have images. classes: in the order of the labels. confused: the most frequent mistakes, 20 at
    most. confusion: (C, C) counts, a row for each true class and a column for each prediction; of more than 50 classes only
    the counts that are not 0, as rows (number of the true class, number of the prediction, count) in that order.
    """

    count: Count
    top1: Share
    top5: Share
    balanced: Share
    classes: tuple[ClassAccuracy, ...]
    confused: tuple[Confusion, ...]
    confusion: tuple[tuple[Count, ...], ...]

    @property
    def is_whole(self) -> bool:
        """Whether ``confusion`` has a row for each class rather than one for each count."""
        return len(self.classes) <= _WHOLE


def classification(gathered: Gathered, classes: Sequence[str]) -> Classification:
    """Figures by class.

    Raises:
        SignalError: the logits are not as many as the classes.
    """
    logits, labels = gathered.logits, gathered.labels
    if logits.shape[1] != len(classes):
        raise SignalError(f"there are {logits.shape[1]} logits for {len(classes)} classes.")
    top = logits.topk(min(5, len(classes)), dim=1).indices
    matrix = confusion_matrix(top[:, 0], labels, len(classes))
    counts, right = matrix.sum(dim=1), matrix.diagonal()
    per_class = tuple(
        ClassAccuracy(name, count, told / count if count else None)
        for name, count, told in zip(classes, counts.tolist(), right.tolist(), strict=True)
    )
    present = counts > 0
    return Classification(
        count=len(labels),
        top1=right.sum().item() / len(labels),
        top5=(top == labels[:, None]).any(dim=1).double().mean().item(),
        balanced=(right[present] / counts[present]).double().mean().item(),
        classes=per_class,
        confused=_confused(matrix, classes),
        confusion=tuple(map(tuple, _written(matrix).tolist())),
    )


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(C, C) int64 counts from predictions and labels (N,): rows are labels, columns predictions."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _written(matrix: Tensor) -> Tensor:
    if len(matrix) <= _WHOLE:
        return matrix
    places = matrix.nonzero()
    return torch.cat([places, matrix[places[:, 0], places[:, 1], None]], dim=1)


def _confused(matrix: Tensor, classes: Sequence[str]) -> tuple[Confusion, ...]:
    mistakes = matrix.clone().fill_diagonal_(0).flatten()
    places = mistakes.argsort(descending=True, stable=True)[:_SHOWN].tolist()
    found = ((divmod(place, len(classes)), int(mistakes[place])) for place in places)
    return tuple(Confusion(classes[label], classes[taken], count) for (label, taken), count in found if count)

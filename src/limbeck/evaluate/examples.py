"""Images that the teacher gets right and the student gets wrong, to be looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.images import decode
from limbeck.data.vision import ImageSplit
from limbeck.errors import DataError, SignalError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.kinds import Count, Png, Share, Side

COUNT = 12
_OF_A_CLASS = 2
_LONGEST_SIDE = 96
_DECIMALS = 6


@dataclass(frozen=True)
class Example:
    """One image that the teacher gets right and the student gets wrong.

    index: its position in the source's own split. label, student, teacher: names of its class and of what each network
    takes it for. student_confidence, teacher_confidence: in [0, 1], the probability of what that network takes it for.
    png: the image as a PNG file in base64, ``width`` by ``height`` pixels, 96 at most; larger ones are scaled down. Images
    that are neither grey nor of three colours are shown by their first channel.
    """

    index: Count
    label: str
    student: str
    teacher: str
    student_confidence: Share
    teacher_confidence: Share
    width: Side
    height: Side
    png: Png


def examples(
    student: Gathered,
    teacher: Gathered,
    split: ImageSplit,
    classes: Sequence[str],
    image_size: tuple[int, int],
    *,
    count: int = COUNT,
) -> tuple[Example, ...]:
    """At most ``count`` images of the split that both networks were gathered on, in its order; none where there is none.

    The classes in which the student's accuracy falls most behind the teacher's come first, each with two images at most:
    those whose wrong answer the student is surest of. Nothing is random. image_size: (H, W) that files are brought to.

    Raises:
        SignalError: the networks' logits are not of these classes.
        DataError: the networks were gathered on other images than the split's, or a chosen file cannot be read.
    """
    _check(student, teacher, split, classes)
    labels = split.labels
    (sure, mine), (teacher_sure, its) = _answers(student), _answers(teacher)
    rows = _chosen(mine == labels, its == labels, labels, sure)[:count]
    found = []
    for row in rows:
        width, height, png = _png(_pixels(split, row, image_size))
        found.append(
            Example(
                index=int(split.index[row]),
                label=classes[int(labels[row])],
                student=classes[int(mine[row])],
                teacher=classes[int(its[row])],
                student_confidence=float(sure[row]),
                teacher_confidence=float(teacher_sure[row]),
                width=width,
                height=height,
                png=png,
            )
        )
    return tuple(found)


def _check(student: Gathered, teacher: Gathered, split: ImageSplit, classes: Sequence[str]) -> None:
    for who, each in (("student", student), ("teacher", teacher)):
        if each.logits.shape[1] != len(classes):
            raise SignalError(f"the {who} has {each.logits.shape[1]} logits for {len(classes)} classes.")
        if not torch.equal(each.labels, split.labels):
            raise DataError(
                f"what the {who} said is of {len(each)} other images than the {len(split)} of the split; examples need "
                "both networks' answers to the split in its order."
            )


def _answers(gathered: Gathered) -> tuple[Tensor, Tensor]:
    """Confidence, rounded, and prediction, both (N,)."""
    confidence, prediction = gathered.logits.double().softmax(dim=1).max(dim=1)
    # The same logits in another order differ in the last bit, and equals shall be equals.
    return confidence.round(decimals=_DECIMALS), prediction


def _chosen(right: Tensor, teacher_right: Tensor, labels: Tensor, sure: Tensor) -> list[int]:
    """Rows that the teacher alone gets right: the classes that lose most first, and in each those of most confidence."""
    lost = torch.bincount(labels, weights=teacher_right.double() - right.double()) / torch.bincount(labels).clamp(min=1)
    rows = (teacher_right & ~right).nonzero().flatten()
    # Of equals the first in the order of the split, since sorting is stable.
    rows = rows[sure[rows].argsort(descending=True, stable=True)]
    by_class: dict[int, list[int]] = {}
    for row in rows.tolist():
        by_class.setdefault(int(labels[row]), []).append(row)
    order = sorted(by_class, key=lambda label: (-lost[label].item(), label))
    return [row for label in order for row in by_class[label][:_OF_A_CLASS]]


def _pixels(split: ImageSplit, row: int, size: tuple[int, int]) -> Tensor:
    return split.images[row] if isinstance(split.images, Tensor) else decode(split.images[row], size)


def _png(pixels: Tensor) -> tuple[int, int, str]:
    """Width, height and the PNG in base64 of an image, uint8 (C, H, W)."""
    from PIL import Image

    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    image = Image.fromarray(shown.contiguous().cpu().numpy())
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return image.width, image.height, base64.b64encode(file.getvalue()).decode()

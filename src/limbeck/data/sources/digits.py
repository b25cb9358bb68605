"""Handwritten digits of 8×8 pixels, part of scikit-learn: the data set that is always there."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.data.sources import RawData, RawSplit, Recipe, Request, SourceEntry
from limbeck.data.stratify import choose

_TRAIN, _VAL = 800, 297


def _load(request: Request) -> RawData:
    """800 train, 297 val, 700 test: a fixed stratified division, as the source has none of its own."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images = (torch.from_numpy(pixels).view(-1, 1, 8, 8) * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(targets).long()
    train = choose(labels, _TRAIN, seed=0)
    rest = _without(torch.arange(len(labels)), train)
    val = rest[choose(labels[rest], _VAL, seed=1)]
    parts = (train, val, _without(rest, val))
    splits = [RawSplit(images[rows], labels[rows], rows) for rows in parts]
    return RawData("digits", splits[0], splits[1], splits[2], tuple("0123456789"))


def _without(rows: Tensor, taken: Tensor) -> Tensor:
    return rows[~torch.isin(rows, taken)]


SOURCE = SourceEntry(
    name="digits",
    what="handwritten digits, embedded in scikit-learn",
    classes=10,
    size="8×8 grey, 800 train, 297 val, 700 test (a fixed division)",
    download="nothing",
    load=_load,
    recipe=Recipe(epochs=30, augment="crop=1"),
)

"""CIFAR-10: 32×32 photos of ten kinds of things (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.data.sources import Recipe, SourceEntry
from limbeck.data.sources._torchvision import loader


def _read(part: str, root: Path, download: bool) -> tuple[Any, Any, tuple[str, ...]]:
    from torchvision.datasets import CIFAR10

    data = CIFAR10(root, train=part == "train", download=download)  # checks the MD5 of every file before it reads it
    return data.data, data.targets, tuple(data.classes)


SOURCE = SourceEntry(
    name="cifar10",
    what="photos of ten kinds of things (Krizhevsky 2009)",
    classes=10,
    size="32×32 colour, 50,000 train, 10,000 test",
    download="170 MB",
    load=loader("cifar10", _read, "the folder cifar-10-batches-py of cifar-10-python.tar.gz"),
    recipe=Recipe(epochs=240),
)

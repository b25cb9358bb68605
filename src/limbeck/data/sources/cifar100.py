"""CIFAR-100: 32×32 photos of a hundred kinds of things (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.data.sources import Recipe, SourceEntry
from limbeck.data.sources._torchvision import loader


def _read(part: str, root: Path, download: bool) -> tuple[Any, Any, tuple[str, ...]]:
    from torchvision.datasets import CIFAR100

    data = CIFAR100(root, train=part == "train", download=download)  # checks the MD5 of every file before it reads it
    return data.data, data.targets, tuple(data.classes)


SOURCE = SourceEntry(
    name="cifar100",
    what="photos of a hundred kinds of things (Krizhevsky 2009)",
    classes=100,
    size="32×32 colour, 50,000 train, 10,000 test",
    download="169 MB",
    load=loader("cifar100", _read, "the folder cifar-100-python of cifar-100-python.tar.gz"),
    # The constants of the CIFAR-100 distillation literature (RepDistiller), which published teachers were trained with.
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    recipe=Recipe(epochs=240),
)

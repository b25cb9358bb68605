"""SVHN: 32×32 photos of house numbers, cut around one digit (Netzer et al. 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.data.sources import Recipe, SourceEntry
from limbeck.data.sources._torchvision import loader


def _read(part: str, root: Path, download: bool) -> tuple[Any, Any, tuple[str, ...]]:
    from torchvision.datasets import SVHN

    data = SVHN(root, split=part, download=download)  # checks the MD5 before it reads
    return data.data.transpose(0, 2, 3, 1), data.labels, tuple("0123456789")


SOURCE = SourceEntry(
    name="svhn",
    what="digits on photos of house numbers (Netzer et al. 2011)",
    classes=10,
    size="32×32 colour, 73,257 train, 26,032 test",
    download="246 MB",
    load=loader("svhn", _read, "train_32x32.mat and test_32x32.mat"),
    recipe=Recipe(epochs=60, augment="crop=4"),
)

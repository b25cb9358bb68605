"""STL-10: 96×96 photos of ten kinds of things, few of them labelled (Coates et al. 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.data.sources import SourceEntry
from limbeck.data.sources._torchvision import loader


def _read(part: str, root: Path, download: bool) -> tuple[Any, Any, tuple[str, ...]]:
    from torchvision.datasets import STL10

    data = STL10(root, split=part, download=download)  # checks the MD5 of every file
    return data.data.transpose(0, 2, 3, 1), data.labels, tuple(data.classes)


SOURCE = SourceEntry(
    name="stl10",
    what="photos of ten kinds of things, the labelled part (Coates et al. 2011)",
    classes=10,
    size="96×96 colour, 5,000 train, 8,000 test",
    download="2.6 GB",
    load=loader("stl10", _read, "the folder stl10_binary of stl10_binary.tar.gz"),
)

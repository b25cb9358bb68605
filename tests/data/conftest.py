"""Small data sets in temporary folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.data import ImageSplit


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def shared_data(shared: Path) -> Path:
    folder = shared / "data"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def resident_split(n: int = 23, channels: int = 3, size: int = 8) -> ImageSplit:
    images = torch.from_numpy(pixels(0, n, channels, size, size))
    return ImageSplit(images, torch.arange(n) % 3, torch.arange(n) + 100)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes PATH/PART/CLASS/*.png: ``counts`` images a class, (H, W) by the ``size``."""

    def make(
        parts: tuple[str, ...] = ("train",), classes: str = "ab", count: int = 4, size: tuple[int, int] = (12, 10)
    ) -> Path:
        from PIL import Image

        root = tmp_path / "pictures"
        for p, part in enumerate(parts):
            for c, name in enumerate(classes):
                folder = root / part / name
                folder.mkdir(parents=True, exist_ok=True)
                for i in range(count):
                    Image.fromarray(pixels(100 * p + 10 * c + i, *size, 3)).save(folder / f"{i}.png")
        return root

    return make

"""Image files: read, check, bring to one size. Pillow and torchvision are imported where they are used."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from limbeck.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("limbeck")
T = TypeVar("T")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
_NAMED = 10


def read_rgb(path: str) -> Image:
    """Decode the file at ``path`` to an RGB PIL image. Raises DataError, naming the file, when it cannot."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise DataError(f"the image '{path}' cannot be read: {error}.") from error


def header_size(path: str) -> tuple[int, int]:
    """(H, W) from the file's header, after Pillow's own check of the file. Raises DataError as ``read_rgb`` does."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Exception as error:  # as above
        raise DataError(f"the image '{path}' cannot be read: {error}.") from error
    return height, width


def fit(image: Any, size: tuple[int, int], crop_ratio: float = 1.0) -> Any:
    """Scale a PIL image or a uint8 (…, H, W) tensor to cover ``size / crop_ratio``, and cut ``size`` from its centre.

    Bilinear with antialias. With ``crop_ratio`` 0.875 and size (224, 224) the shorter side becomes 256, as on ImageNet.
    """
    from torchvision.transforms.v2 import functional as F

    height, width = F.get_size(image)
    if (height, width) == tuple(size) and crop_ratio == 1.0:
        return image
    scale = max(size[0] / height, size[1] / width) / crop_ratio
    scaled = [max(round(height * scale), size[0]), max(round(width * scale), size[1])]
    return F.center_crop(F.resize(image, scaled, antialias=True), list(size))


def to_tensor(image: Image) -> Tensor:
    """The pixels of an RGB image as uint8 (3, H, W)."""
    from torchvision.transforms.v2 import functional as F

    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


def decode(path: str, size: tuple[int, int]) -> Tensor:
    """The file at ``path`` as uint8 (3, H, W) of ``size``; scaled and cut from the centre where it differs."""
    return to_tensor(fit(read_rgb(path), size))


def read_each(
    paths: Sequence[str], read: Callable[[str], T], where: str, skip_unreadable: bool
) -> tuple[list[T], list[int]]:
    """``read(path)`` for all paths, in threads, and the positions that could be read.

    Raises DataError that counts all unreadable files and names up to ten; with ``skip_unreadable`` logs them instead.
    """

    def attempt(path: str) -> T | DataError:
        try:
            return read(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(attempt, paths, chunksize=64))
    values = [value for value in outcomes if not isinstance(value, DataError)]
    kept = [position for position, value in enumerate(outcomes) if not isinstance(value, DataError)]
    if len(kept) < len(paths):
        _report(
            [path for path, value in zip(paths, outcomes, strict=True) if isinstance(value, DataError)],
            len(paths),
            where,
            skip_unreadable,
        )
    return values, kept


def _report(bad: list[str], total: int, where: str, skip_unreadable: bool) -> None:
    named = ", ".join(bad[:_NAMED]) + (f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
    count = f"{len(bad)} of {total} images of {where} cannot be read: {named}."
    if not skip_unreadable:
        raise DataError(f"{count} Repair or remove them, or set skip_unreadable to go on without them.")
    logger.warning("%s They are skipped.", count)


def resize_all(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (N, C, H, W) brought to ``size`` by ``fit``, a part at a time to bound the memory."""
    return torch.cat([fit(part, size) for part in torch.split(images, 1024)])

"""Splits from NumPy arrays and .npz files. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.data.sources import RawData, RawSplit, Request
from limbeck.errors import DataError

Arrays = Mapping[str, Any]
_MOST_CHANNELS = 16


def split_from(images: Any, labels: Any, where: str) -> RawSplit:
    """A split from ``images`` uint8 N×H×W×C or N×H×W and ``labels`` (N,) integer. Raises DataError naming ``where``."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise DataError(f"{where}: images must be uint8 (0 to 255), got {images.dtype}; scale and convert them first.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not 1 <= images.shape[-1] <= _MOST_CHANNELS:
        raise DataError(f"{where}: images must be N×H×W×C or N×H×W, got {images.shape}; the channels come last.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}.")
    channels_first = np.require(images.transpose(0, 3, 1, 2), requirements=["C", "W"])
    return RawSplit(torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64)))


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file by name. Raises DataError when it is missing, no archive, or holds pickled objects."""
    if not path.is_file():
        raise DataError(f"data: there is no file '{path}'.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"'{path}' cannot be read as a .npz of plain arrays (no pickled objects): {error}.") from error


def split_in(arrays: Arrays, prefix: str, where: str) -> RawSplit | None:
    """The split whose arrays are ``PREFIXimages`` and ``PREFIXlabels``, or None when neither is there."""
    names = [f"{prefix}images", f"{prefix}labels"]
    missing = [name for name in names if name not in arrays]
    if len(missing) == 2:
        return None
    if missing:
        raise DataError(f"{where}: the array '{missing[0]}' is missing; it has {', '.join(sorted(arrays))}.")
    return split_from(arrays[names[0]], arrays[names[1]], where)


def class_names(arrays: Arrays, splits: list[RawSplit | None]) -> tuple[str, ...]:
    """The names in ``class_names``, or the numbers up to the largest label."""
    if "class_names" in arrays:
        return tuple(str(name) for name in np.asarray(arrays["class_names"]).ravel())
    largest = max((int(split.labels.max()) for split in splits if split is not None and len(split.labels)), default=-1)
    return tuple(str(number) for number in range(largest + 1))


def from_named_files(request: Request, name: str) -> RawData | None:
    """The data set ``name`` from ``NAME-train.npz``, ``NAME-val.npz`` and ``NAME-test.npz``; None without the first."""
    path = request.data_dir / f"{name}-train.npz"
    if not path.is_file():
        return None
    files = {part: request.data_dir / f"{name}-{part}.npz" for part in ("train", "val", "test")}
    arrays = {part: read_npz(file) for part, file in files.items() if file.is_file()}
    splits = {part: split_in(held, "", str(files[part])) for part, held in arrays.items()}
    train = splits["train"]
    if train is None:
        raise DataError(
            f"'{path}' needs the arrays 'images' and 'labels'; it has {', '.join(sorted(arrays['train']))}."
        )
    classes = class_names(arrays["train"], list(splits.values()))
    return RawData(name, train, splits.get("val"), splits.get("test"), classes)

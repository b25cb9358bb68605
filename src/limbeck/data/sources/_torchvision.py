"""Data sets through torchvision: its layout on the disk, its downloads and its checksums."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.data.sources import RawData, RawSplit, Request
from limbeck.data.sources._arrays import from_named_files, split_from
from limbeck.errors import DataError

# Reads a split ("train" or "test") under a folder, downloading when asked: images N×H×W×C or N×H×W, labels, classes.
Reader = Callable[[str, Path, bool], tuple[Any, Any, tuple[str, ...]]]


def loader(name: str, read: Reader, files: str) -> Callable[[Request], RawData]:
    """The ``load`` of a source: NAME-train.npz first, then torchvision's layout in the data folder, then a download.

    files: what torchvision's layout is, for the sentence that says where to put it.
    """
    return partial(_load, name=name, read=read, files=files)


def _load(request: Request, name: str, read: Reader, files: str) -> RawData:
    saved = from_named_files(request, name)
    if saved is not None:
        return saved
    for root in (request.data_dir, request.data_dir / name):
        if root.is_dir():
            try:
                return _read_both(name, read, root, download=False)
            except (OSError, RuntimeError):  # torchvision's way to say that the files are not here
                continue
    if not request.download:
        raise not_found(name, request, files, "downloading is switched off")
    request.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        return _read_both(name, read, request.data_dir, download=True)
    except (OSError, RuntimeError) as error:
        raise not_found(name, request, files, f"the download failed ({error})") from error


def not_found(name: str, request: Request, files: str, reason: str) -> DataError:
    """The sentence that says where to put which files."""
    return DataError(
        f"{name} is not in '{request.data_dir}' and {' '.join(reason.split())}. "
        f"Put {files} there, or {name}-train.npz and "
        f"{name}-test.npz (arrays images uint8 N×H×W×C, labels, class_names), or set data_dir to where they are."
    )


def _read_both(name: str, read: Reader, root: Path, download: bool) -> RawData:
    splits: list[RawSplit] = []
    classes: tuple[str, ...] = ()
    for part in ("train", "test"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files of fixed checksum: new NumPy has remarks about their layout
            images, labels, classes = read(part, root, download)
        splits.append(split_from(images, np.asarray(labels, dtype=np.int64), f"{name} {part}"))
    return RawData(name, splits[0], None, splits[1], classes)

"""Fashion-MNIST: 28×28 grey pictures of clothes (Xiao et al. 2017), read from its idx files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.data.sources import RawData, Recipe, Request, SourceEntry
from limbeck.data.sources._arrays import from_named_files, split_from
from limbeck.data.sources._torchvision import not_found
from limbeck.errors import DataError

_NAME = "fashion-mnist"
_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_STEMS = {"train": "train", "test": "t10k"}
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package dataset-fashion-mnist puts the files


def _load(request: Request) -> RawData:
    saved = from_named_files(request, _NAME)
    if saved is not None:
        return saved
    root = _folder(request)
    train, test = (
        split_from(_idx(root, f"{stem}-images-idx3-ubyte"), _idx(root, f"{stem}-labels-idx1-ubyte"), f"{_NAME} {part}")
        for part, stem in _STEMS.items()
    )
    return RawData(_NAME, train, None, test, _CLASSES)


def _folder(request: Request) -> Path:
    base = request.data_dir
    candidates = (base, base / _NAME, base / "FashionMNIST" / "raw", _DEBIAN)
    for folder in candidates:
        if _file(folder, "train-images-idx3-ubyte") is not None:
            return folder
    files = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k files (.gz or not)"
    if not request.download:
        raise not_found(_NAME, request, files, "downloading is switched off")
    from torchvision.datasets import FashionMNIST

    try:
        base.mkdir(parents=True, exist_ok=True)
        FashionMNIST(base, download=True)
    except (OSError, RuntimeError) as error:
        raise not_found(_NAME, request, files, f"the download failed ({error})") from error
    return base / "FashionMNIST" / "raw"


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _idx(folder: Path, name: str) -> Any:
    """The uint8 array of an idx file: two zero bytes, type 8, the number of dimensions, each as big-endian int32."""
    path = _file(folder, name)
    if path is None:
        raise DataError(f"{_NAME}: '{folder}' has no {name} or {name}.gz.")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{_NAME}: '{path}' cannot be read: {error}.") from error
    start = 4 + 4 * dimensions
    if zeros != 0 or kind != 8 or len(raw) - start != math.prod(shape):
        raise DataError(f"{_NAME}: '{path}' is no complete idx file of bytes.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


SOURCE = SourceEntry(
    name=_NAME,
    what="grey pictures of clothes (Xiao et al. 2017)",
    classes=10,
    size="28×28 grey, 60,000 train, 10,000 test",
    download="31 MB",
    load=_load,
    recipe=Recipe(epochs=60, augment="crop=2,flip"),
)

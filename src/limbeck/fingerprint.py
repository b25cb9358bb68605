"""Digests that tell networks and data apart: equal contents give equal digits on every machine and device."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from limbeck.data import ImageSplit

_FULL_BYTES = 2**30
_SAMPLED_FILES = 1024
_CHUNK_BYTES = 2**24


def of_module(module: nn.Module) -> str:
    """64 hexadecimal digits over a network's structure and its state.

    Structure: the class of each submodule with the settings it prints (strides, kernel sizes, rates), but not whether it
    works in place, which a tap may change. State: names, dtypes, shapes and bytes of the ``state_dict``. What a class
    computes beyond that, such as a constant in its code, is not seen. Wrappers of ``torch.compile`` do not count.
    """
    digest = hashlib.sha256()
    module = getattr(module, "_orig_mod", module)
    for name, part in module.named_modules():
        settings = [word for word in part.extra_repr().split(", ") if word and not word.startswith("inplace=")]
        _add_text(digest, name, f"{type(part).__module__}.{type(part).__qualname__}", *settings)
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            _add_tensor(digest, name, value)
        else:
            _add_text(digest, name, repr(value))
    return digest.hexdigest()


def of_tensors(**tensors: Tensor) -> str:
    """64 hexadecimal digits over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        _add_tensor(digest, name, value)
    return digest.hexdigest()


def of_words(*words: str) -> str:
    """64 hexadecimal digits over texts, in their order."""
    digest = hashlib.sha256()
    _add_text(digest, *words)
    return digest.hexdigest()


def of_split(split: ImageSplit) -> str:
    """64 hexadecimal digits over the images, labels and index of a split, in their order.

    Images in memory are read whole. Of image files, the paths below their common folder and the sizes always count, and
    the bytes of all files where these are at most 1 GiB; of more, the bytes of 1,024 files spread evenly. Reading a data
    set such as ImageNet at every start would cost more than a cache saves, while another version of a picture nearly
    always has another size; the ends of each file are no cheaper, since photos are not much larger than what a disk reads
    at once. Times of files do not count: a copy is the same data.
    """
    digest = hashlib.sha256()
    _add_tensor(digest, "labels", split.labels)
    _add_tensor(digest, "index", split.index)
    if isinstance(split.images, Tensor):
        _add_tensor(digest, "images", split.images)
    else:
        _add_files(digest, [Path(path) for path in split.images])
    return digest.hexdigest()


def _add_files(digest: hashlib._Hash, paths: list[Path]) -> None:
    # The folder of the only file, not the file itself, is what its name is relative to.
    root = os.path.commonpath([path.parent for path in paths])
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        _add_text(digest, path.relative_to(root).as_posix(), str(size))
    step = 1 if sum(sizes) <= _FULL_BYTES else -(-len(paths) // _SAMPLED_FILES)
    for path in paths[::step]:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)


def _add_tensor(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    _add_text(digest, name, str(value.dtype), str(tuple(value.shape)))
    flat = value.detach().reshape(-1)
    for part in flat.split(max(1, _CHUNK_BYTES // value.element_size())):
        digest.update(part.cpu().contiguous().view(torch.uint8).numpy().data)


def _add_text(digest: hashlib._Hash, *words: str) -> None:
    # With their lengths, so that no two lists of words give the same bytes.
    for word in words:
        data = word.encode()
        digest.update(f"{len(data)}:".encode() + data)

"""Tiny ImageNet: 64×64 photos of 200 kinds of things (Le and Yang 2015), in the layout of its zip file."""

from __future__ import annotations

from pathlib import Path

import torch

from limbeck.data.sources import RawData, RawSplit, Request, SourceEntry
from limbeck.data.sources._arrays import from_named_files
from limbeck.data.sources._torchvision import not_found
from limbeck.data.sources.folder import read_split
from limbeck.errors import DataError

_NAME, _FOLDER = "tiny-imagenet", "tiny-imagenet-200"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def _load(request: Request) -> RawData:
    """The official validation images are the test split: the official test images have no labels."""
    saved = from_named_files(request, _NAME)
    if saved is not None:
        return saved
    root = _folder(request)
    classes = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))
    return RawData(_NAME, read_split(root / "train", classes), None, _annotated(root / "val", classes), classes)


def _folder(request: Request) -> Path:
    base = request.data_dir
    for folder in (base / _FOLDER, base / _NAME, base):
        if (folder / "train").is_dir() and (folder / "val" / "val_annotations.txt").is_file():
            return folder
    if not request.download:
        raise not_found(_NAME, request, f"the folder {_FOLDER} of {_FOLDER}.zip", "downloading is switched off")
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        base.mkdir(parents=True, exist_ok=True)
        download_and_extract_archive(_URL, str(base), md5=_MD5)
    except (OSError, RuntimeError) as error:
        reason = f"the download failed ({error})"
        raise not_found(_NAME, request, f"the folder {_FOLDER} of {_FOLDER}.zip", reason) from error
    return base / _FOLDER


def _annotated(root: Path, classes: tuple[str, ...]) -> RawSplit:
    """Lines of val_annotations.txt: the file, its class, and a box that is not used."""
    table = root / "val_annotations.txt"
    rows = [line.split("\t") for line in table.read_text().splitlines() if line.strip()]
    numbers = {name: number for number, name in enumerate(classes)}
    bad = next((row for row in rows if len(row) < 2 or row[1] not in numbers), None)
    if bad is not None:
        raise DataError(f"'{table}': the line that starts with '{bad[0]}' names no class of train.")
    return RawSplit([str(root / "images" / row[0]) for row in rows], torch.tensor([numbers[row[1]] for row in rows]))


SOURCE = SourceEntry(
    name=_NAME,
    what="photos of 200 kinds of things (Le and Yang 2015); its validation images are the test split",
    classes=200,
    size="64×64 colour, 100,000 train, 10,000 test",
    download="237 MB",
    load=_load,
)

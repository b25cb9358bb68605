"""``PATH.npz``: arrays in a file."""

from __future__ import annotations

from pathlib import Path

from limbeck.data.sources import RawData, Recipe, Request, SourceEntry
from limbeck.data.sources._arrays import class_names, read_npz, split_in
from limbeck.errors import DataError


def _match(spec: str) -> str | None:
    return spec if spec.lower().endswith(".npz") else None


def _load(request: Request) -> RawData:
    """``images`` and ``labels``, or these with the prefixes ``train_``, ``val_`` and ``test_``."""
    path = Path(request.argument).expanduser()
    arrays = read_npz(path)
    plain = split_in(arrays, "", str(path))
    train, val, test = (split_in(arrays, f"{part}_", str(path)) for part in ("train", "val", "test"))
    train = train or plain
    if train is None:
        raise DataError(
            f"'{path}' needs the arrays images and labels, or train_images and train_labels (val_…, test_… too); "
            f"it has {', '.join(sorted(arrays)) or 'none'}."
        )
    return RawData(path.stem, train, val, test, class_names(arrays, [train, val, test]))


SOURCE = SourceEntry(
    name="PATH.npz",
    what="arrays images (uint8 N×H×W×C) and labels in a NumPy file, or train_images, train_labels, val_…, test_…",
    classes=None,
    size="as in the file",
    download="nothing",
    load=_load,
    match=_match,
    recipe=Recipe(augment="none"),
)

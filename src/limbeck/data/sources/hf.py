"""``hf:NAME``: a data set of Hugging Face, or a local folder that its ``datasets`` package reads."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from limbeck.data.sources import RawData, RawSplit, Recipe, Request, SourceEntry
from limbeck.errors import DataError, MissingExtraError, SettingError, unknown_name

_PREFIX = "hf:"
_SPLITS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}


def _match(spec: str) -> str | None:
    return spec.removeprefix(_PREFIX) if spec.startswith(_PREFIX) else None


def _load(request: Request) -> RawData:
    """``hf:NAME``, ``hf:NAME:CONFIG``, each with ``#COLUMN`` to name the label column where there are several."""
    path, _, column = request.argument.partition("#")
    name, _, config = path.partition(":")
    tables = _fetch(name, config or None, request.download)
    first = next(iter(tables.values()))
    label = _label_column(request.argument, first.features, column)
    image = _image_column(request.argument, first.features)
    splits = {
        part: _split(next((tables[key] for key in keys if key in tables), None), image, label, request.data_dir / "hf")
        for part, keys in _SPLITS.items()
    }
    train = splits["train"]
    if train is None:
        raise DataError(f"hf:{request.argument} has no split 'train'; it has {', '.join(tables)}.")
    return RawData(request.argument, train, splits["val"], splits["test"], tuple(first.features[label].names))


def _fetch(name: str, config: str | None, download: bool) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "text", f"data 'hf:{name}'") from error
    where = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    mode = datasets.DownloadConfig(local_files_only=not download)
    try:
        return datasets.load_dataset(where, config, download_config=mode)
    except Exception as error:  # the hub, the network and the builders raise many kinds
        raise DataError(
            f"hf:{name} cannot be loaded: {error} Without a network, copy the data set's folder here and set "
            f"data to hf:FOLDER, or fill the Hugging Face cache (HF_HOME) on a machine that has one."
        ) from error


def _columns(features: Any, kind: str) -> list[str]:
    return [name for name, feature in features.items() if type(feature).__name__ == kind]


def _image_column(argument: str, features: Any) -> str:
    found = _columns(features, "Image")
    if not found:
        raise DataError(f"hf:{argument} has no column of images; it has {', '.join(features)}.")
    return found[0]


def _label_column(argument: str, features: Any, wanted: str) -> str:
    found = _columns(features, "ClassLabel")
    if not found:
        raise DataError(f"hf:{argument} has no column of class labels; it has {', '.join(features)}.")
    if wanted and wanted not in found:
        raise SettingError(f"data hf:{argument}: {unknown_name('label column', wanted, found)}")
    if len(found) > 1 and not wanted and "label" not in found:
        raise SettingError(f"data hf:{argument} has the label columns {', '.join(found)}; add #{found[0]} or another.")
    return wanted or ("label" if "label" in found else found[0])


def _split(table: Any, image: str, label: str, cache: Path) -> RawSplit | None:
    if table is None:
        return None
    labels = torch.tensor(table[label][:])
    if len(labels) and bool((labels == -1).all()):  # how the hub marks labels that are kept secret
        return None
    from datasets import Image

    return RawSplit(_files(table.select_columns([image]).cast_column(image, Image(decode=False)), image, cache), labels)


def _files(table: Any, image: str, cache: Path) -> list[str]:
    """Paths of the images, which lie inside the data set's own files and are written out once."""
    key = hashlib.blake2b(f"{table._fingerprint}/{len(table)}".encode(), digest_size=12).hexdigest()
    folder = cache / key
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=cache, prefix=f"{key}."))
        for position, row in enumerate(table):
            held = row[image]
            data = held["bytes"] if held["bytes"] is not None else Path(held["path"]).read_bytes()
            (part / f"{position:08d}").write_bytes(data)
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return [str(folder / f"{position:08d}") for position in range(len(table))]


SOURCE = SourceEntry(
    name="hf:NAME",
    what="a data set of Hugging Face with an image and a class label column (hf:NAME:CONFIG, hf:NAME#COLUMN)",
    classes=None,
    size="as in the data set; read as RGB",
    download="the data set",
    load=_load,
    match=_match,
    recipe=Recipe(augment="flip"),
)

"""Tables of text from files and folders: rows with named columns, whatever the format."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.data.text.columns import Row
from limbeck.errors import DataError, MissingExtraError, SettingError

_HF = "hf:"
_SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_LAYOUT = "files named train, validation and test (.jsonl, .csv, .tsv, .parquet or .txt), or train/CLASS/*.txt"


@dataclass(frozen=True)
class Table:
    """Rows as a file holds them. columns: their names. classes: the names of a column's labels, where the file tells them."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_tables(spec: str, *, header: bool = True, download: bool = True) -> dict[str, Table]:
    """The tables that ``spec`` names, by split: ``train``, and ``val`` and ``test`` where it has them.

    spec: a file (its rows are all ``train``), a folder with a file for each split, a folder of text files with a folder for
    each class, a folder that ``save_to_disk`` of Hugging Face's datasets wrote, or ``hf:NAME`` or ``hf:NAME:CONFIG``.
    header: whether the first line of CSV and TSV names the columns; without, they are named 0, 1, 2, …
    download: whether a data set of ``hf:`` may be fetched.

    Raises:
        DataError: it is missing, damaged, of no known format, or has no rows for training.
        MissingExtraError: a package for the format is not installed.
    """
    if spec.startswith(_HF):
        return _from_hub(spec, download)
    path = Path(spec).expanduser()
    if path.is_file():
        return {"train": read_file(path, header=header)}
    if not path.is_dir():
        raise DataError(f"data: there is no file or folder '{path}'. A data set of Hugging Face is hf:NAME.")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _from_disk(path)
    return _from_folder(path, header)


def read_file(path: Path, *, header: bool = True) -> Table:
    """One table; its format follows from the end of the file's name. Raises as :func:`read_tables`."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"'{path}' must end in {', '.join(_READERS)}, which tell its format.")
    try:
        table = reader(path, header)
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not table.rows:
        raise DataError(f"'{path}' holds no rows.")
    return table


def not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """What is said of a file in another encoding."""
    return DataError(
        f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}); convert it, as with iconv -f latin1 -t utf-8."
    )


def _jsonl(path: Path, header: bool) -> Table:
    rows: list[Row] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_json(line, f"'{path}', line {number}"))
    return Table(_union(rows), rows)


def _json(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error.msg} at character {error.pos}.") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} must be a JSON object with named columns, got {type(row).__name__}.")
    return row


def _json_array(path: Path, header: bool) -> Table:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"'{path}' is not JSON: {error}. One object a line is .jsonl.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"'{path}' must be a JSON list of objects with named columns.")
    return Table(_union(rows), rows)


def _union(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for row in rows for column in row))


def _csv(path: Path, header: bool) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file, _long_cells():
        return _separated(path, csv.reader(file, strict=True), header)


@contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _tsv(path: Path, header: bool) -> Table:
    """Tabs separate, and quotes are text like any other, as in GLUE's files."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        return _separated(path, (line.rstrip("\r\n").split("\t") for line in file), header)


def _separated(path: Path, lines: Iterator[list[str]], header: bool) -> Table:
    try:
        cells = [(number, line) for number, line in enumerate(lines, start=1) if line and line != [""]]
    except csv.Error as error:
        raise DataError(f"'{path}' is no valid CSV: {error}.") from error
    if not cells:
        return Table((), [])
    names = tuple(cells[0][1]) if header else tuple(map(str, range(len(cells[0][1]))))
    if len(set(names)) < len(names):
        raise DataError(
            f"'{path}' names a column twice: {', '.join(names)}. Without a line of names, set header=False."
        )
    for number, line in cells:
        if len(line) != len(names):
            raise DataError(f"'{path}', row {number}, has {len(line)} cells instead of {len(names)}.")
    return Table(names, [dict(zip(names, line, strict=True)) for _, line in cells[header:]])


def _parquet(path: Path, header: bool) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "text", f"'{path}'") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"'{path}' cannot be read as Parquet: {error}") from error
    return Table(tuple(table.column_names), table.to_pylist())


def _txt(path: Path, header: bool) -> Table:
    text = path.read_text(encoding="utf-8-sig")
    return Table(("text",), [{"text": text}] if text.strip() else [])


_READERS: Mapping[str, Callable[[Path, bool], Table]] = {
    ".jsonl": _jsonl,
    ".json": _json_array,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _txt,
}
FORMATS = tuple(_READERS)
"""Ends of the names of files that are read."""


def is_table_folder(folder: Path) -> bool:
    """Whether a folder has a file for training that is read as text."""
    return any((folder / f"{name}{end}").is_file() for name in _SPLITS["train"] for end in FORMATS)


def _from_folder(folder: Path, header: bool) -> dict[str, Table]:
    found = {part: _part_of(folder, names, header) for part, names in _SPLITS.items()}
    if found["train"] is None and not any(found.values()) and _class_folders(folder):
        found["train"] = _of_classes(folder)
    tables = {part: table for part, table in found.items() if table is not None}
    if "train" not in tables:
        has = f"it has {', '.join(tables)} but no train" if tables else "nothing like that is in it"
        raise DataError(f"'{folder}' must hold {_LAYOUT}; {has}. A single file can be named itself.")
    return tables


def _part_of(folder: Path, names: Sequence[str], header: bool) -> Table | None:
    files = [path for name in names for suffix in _READERS if (path := folder / f"{name}{suffix}").is_file()]
    if len(files) > 1:
        told = " and ".join(f"'{path.name}'" for path in files)
        raise SettingError(f"data: '{folder}' has {told} for the same split; keep one, or name the file itself.")
    if files:
        return read_file(files[0], header=header)
    return next((_of_classes(folder / name) for name in names if _class_folders(folder / name)), None)


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.txt")))


def _of_classes(folder: Path) -> Table:
    classes = _class_folders(folder)
    files = [(path, one.name) for one in classes for path in sorted(one.glob("*.txt"))]
    rows = [{"text": _whole(path), "label": name} for path, name in files]
    return Table(("text", "label"), rows)


def _whole(path: Path) -> str:
    rows = read_file(path).rows
    return str(rows[0]["text"])


def _datasets(spec: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "text", f"data '{spec}'") from error
    return datasets


def _from_hub(spec: str, download: bool) -> dict[str, Table]:
    name, _, config = spec.removeprefix(_HF).partition(":")
    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_disk(folder)
    datasets = _datasets(spec)
    mode = datasets.DownloadConfig(local_files_only=not download)
    try:
        found = datasets.load_dataset(str(folder) if folder.is_dir() else name, config or None, download_config=mode)
    except Exception as error:  # the hub, the network and the builders raise many kinds
        raise DataError(
            f"{spec} cannot be loaded: {error} Without a network, give a folder that save_to_disk wrote, or fill the "
            "Hugging Face cache (HF_HOME) on a machine that has one."
        ) from error
    return _of_datasets(spec, found)


def _from_disk(folder: Path) -> dict[str, Table]:
    datasets = _datasets(str(folder))
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the package raises many kinds on a damaged folder
        raise DataError(f"'{folder}' cannot be read as a data set that save_to_disk wrote: {error}") from error
    return _of_datasets(f"'{folder}'", found)


def _of_datasets(spec: str, found: Any) -> dict[str, Table]:
    by_name = dict(found) if hasattr(found, "keys") else {"train": found}
    keys = {part: next((name for name in names if name in by_name), None) for part, names in _SPLITS.items()}
    tables = {part: _of_dataset(by_name[key]) for part, key in keys.items() if key is not None}
    if "train" not in tables:
        raise DataError(f"{spec} has no split 'train'; it has {', '.join(by_name)}.")
    return tables


def _of_dataset(table: Any) -> Table:
    labels = {name: kind for name, kind in table.features.items() if type(kind).__name__ == "ClassLabel"}
    classes = {name: tuple(kind.names) for name, kind in labels.items()}
    return Table(tuple(table.column_names), table.to_list(), classes)

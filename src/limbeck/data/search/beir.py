"""Folders as BEIR and NanoBEIR have them: ``corpus``, ``queries`` and ``qrels``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.data.search.collection import SearchData
from limbeck.data.search.gather import Judged, Row, gather
from limbeck.data.search.report import SearchReport
from limbeck.data.text.readers import not_utf8, read_file
from limbeck.errors import DataError

_FORMATS = (".jsonl", ".parquet", ".tsv", ".csv", ".json")
_PARTS = {"train": "train", "training": "train", "dev": "val", "val": "val", "validation": "val", "test": "test"}
_SHARD = re.compile(r"(?P<name>.+?)-\d+-of-\d+")
_ID = ("_id", "id", "query_id", "doc_id", "docid")
_QUERY, _DOCUMENT = ("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "doc_id", "docid", "pid")
_GRADE = ("score", "relevance", "rel", "label")


def is_beir(folder: Path) -> bool:
    """Whether a folder holds ``corpus``, ``queries`` and ``qrels``, each as a file or a folder of files."""
    return all(_files(folder, name) for name in ("corpus", "queries", "qrels"))


def read_beir(folder: Path) -> tuple[SearchData, SearchReport]:
    """A folder with ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and
    ``qrels/PART.tsv`` (``query-id``, ``corpus-id``, ``score``, with a line of names), PART train, dev or test.

    Each may be a folder with files in it, such as ``corpus/train-00000-of-00001.parquet``, and another format of
    :func:`limbeck.data.text.load_text`. Title and text are one text, a space between them. Where all judgements are in shards
    called train, as Hugging Face names the only split of a data set (NanoBEIR's), they are the part ``test``. Judgements
    without a score are of grade 1. A file of judgements with four columns and no names is read as TREC's: query, a number
    that is not used, document, grade.

    Raises:
        DataError: a file is missing, damaged or lacks a column, or the collection contradicts itself (:func:`gather`).
    """
    for name in ("corpus", "queries", "qrels"):
        if not _files(folder, name):
            raise DataError(
                f"'{folder}' has no '{name}': a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv, or folders "
                f"of these names."
            )
    notes = []
    parts: dict[str, list[Judged]] = {}
    for path in _files(folder, "qrels"):
        parts.setdefault(_part_of(path), []).extend(_judged(path))
    if set(parts) == {"train"} and all(_SHARD.fullmatch(path.stem) for path in _files(folder, "qrels")):
        parts = {"test": parts["train"]}
        notes = ["the only judgements are in shards called train; they are the part test"]
    return gather(folder.name, _texts(folder, "corpus"), _texts(folder, "queries"), parts, notes)


def _files(folder: Path, name: str) -> list[Path]:
    beside = [path for ending in _FORMATS if (path := folder / f"{name}{ending}").is_file()]
    inside = sorted(path for path in (folder / name).glob("*") if path.suffix in _FORMATS)
    return beside or inside


def _part_of(path: Path) -> str:
    shard = _SHARD.fullmatch(path.stem)
    name = shard["name"] if shard else path.stem
    return _PARTS.get(name, "test" if name == "qrels" else name)


def _texts(folder: Path, name: str) -> Iterator[Row]:
    for path in _files(folder, name):
        for number, row in enumerate(read_file(path).rows, start=1):
            where = f"'{path}', row {number}"
            title, text = (str(row.get(column) or "") for column in ("title", "text"))
            if "text" not in row:
                raise DataError(f"{where} has no column 'text'; it has {', '.join(row)}.")
            yield str(_cell(row, _ID, where)), f"{title} {text}".strip()


def _judged(path: Path) -> Iterator[Judged]:
    rows = _trec(path) if path.suffix == ".tsv" else None
    for number, row in enumerate(read_file(path).rows if rows is None else rows, start=1):
        where = f"'{path}', row {number}"
        grade = next((row[column] for column in _GRADE if column in row), 1)
        yield str(_cell(row, _QUERY, where)), str(_cell(row, _DOCUMENT, where)), _whole(grade, where)


def _trec(path: Path) -> list[Mapping[str, Any]] | None:
    """The rows of a file in TREC's format; None where it is another."""
    try:
        lines = [cells for line in path.read_text(encoding="utf-8-sig").split("\n") if (cells := line.split())]
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not lines or any(len(cells) != 4 for cells in lines) or not lines[0][3].lstrip("-").isdigit():
        return None
    return [{"qid": query, "docid": document, "rel": grade} for query, _, document, grade in lines]


def _cell(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    found = next((row[name] for name in names if row.get(name) is not None), None)
    if found is None:
        raise DataError(f"{where} has none of the columns {', '.join(names)}; it has {', '.join(row)}.")
    return found


def _whole(grade: Any, where: str) -> int:
    try:
        value = float(grade)
    except (TypeError, ValueError):
        value = 0.5
    if value != int(value):
        raise DataError(f"{where}: a grade must be a whole number, got {grade!r:.40}.")
    return int(value)

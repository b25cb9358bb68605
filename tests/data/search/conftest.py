"""Small collections, in memory and on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from limbeck.data.search import SearchData
from limbeck.data.search.gather import gather

DOCUMENTS = {
    "d1": "wings bend in the wind",
    "d2": "heat flows through a slab",
    "d3": "a slab of steel",
    "d4": "wings bend in the wind",  # a copy of d1
    "d5": "boats float on water",
    "d6": "water is wet",
    "d7": "steel does not float",
    "d8": "the wind is cold",
}
QUERIES = {"q1": "why do wings bend", "q2": "does heat flow", "q3": "do boats float", "q4": "is steel heavy"}
JUDGED = [
    ("q1", "d1", 1),
    ("q1", "d8", 2),
    ("q2", "d2", 1),
    ("q2", "d6", 0),
    ("q3", "d5", 1),
    ("q4", "d3", 1),
    ("q4", "d7", 1),
]


@pytest.fixture
def data() -> SearchData:
    """Eight documents, two of them equal, and four queries, all of the part train."""
    return gather("small", DOCUMENTS.items(), QUERIES.items(), {"train": JUDGED})[0]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_lines(path, map(json.dumps, rows))


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A BEIR folder."""
    folder = tmp_path / "small"
    write_jsonl(folder / "corpus.jsonl", ({"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()))
    write_jsonl(folder / "queries.jsonl", ({"_id": name, "text": text} for name, text in QUERIES.items()))
    for part, queries in (("train", ("q1", "q2")), ("dev", ("q3",)), ("test", ("q4",))):
        rows = ["\t".join(map(str, row)) for row in JUDGED if row[0] in queries]
        write_lines(folder / "qrels" / f"{part}.tsv", ["query-id\tcorpus-id\tscore", *rows])
    return folder

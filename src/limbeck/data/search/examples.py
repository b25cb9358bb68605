"""Training examples from one file: a query, a document that answers it, and perhaps some that do not, with scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.data.search.collection import SearchData
from limbeck.data.search.gather import gather_examples
from limbeck.data.search.report import SearchReport
from limbeck.data.text.readers import read_file
from limbeck.errors import DataError

_QUERY = ("query", "question", "anchor", "0")
_POSITIVE = ("positive", "pos", "answer", "document", "passage", "1")
_NEGATIVES = ("negatives", "neg", "negative", "2")
_SCORES = ("scores", "score", "label")


def read_examples(path: Path, *, header: bool = True) -> tuple[SearchData, SearchReport]:
    """A file (.jsonl, .json, .tsv, .csv, .parquet) with a row for each example.

    Columns: ``query`` (or ``question``, ``anchor``), ``positive`` (or ``pos``, ``answer``, ``document``, ``passage``), and
    where there are negatives ``negatives`` (a list), ``negative``, or ``negative_1``, ``negative_2``, …; ``scores`` is a list
    of a teacher's scores, of the positive and of each negative. Without a header (.tsv, .csv) the columns are query, positive
    and negatives, in this order.

    Raises:
        DataError: the file is missing or damaged, a column is not there, scores do not fit, or no example is left.
    """
    rows = read_file(path, header=header).rows
    return gather_examples(path.name, _examples(path, rows))


def _examples(path: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str], list[float]]]:
    for number, row in enumerate(rows, start=1):
        where = f"'{path}', row {number}"
        query, positive = _column(row, _QUERY, where), _column(row, _POSITIVE, where)
        if isinstance(positive, list):
            if len(positive) != 1:
                raise DataError(f"{where}: an example has one positive, got {len(positive)}; write a row for each.")
            positive = positive[0]
        documents = [positive, *_negatives(row)]
        yield _string(query, where), [_string(text, where) for text in documents], _scores(row, len(documents), where)


def _column(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    found = next((row[name] for name in names if row.get(name) is not None), None)
    if found is None:
        if (empty := next((name for name in names if name in row), None)) is not None:
            raise DataError(f"{where}: the column '{empty}' is empty.")
        raise DataError(f"{where} has no column '{names[0]}' (or {', '.join(names[1:-1])}); it has {', '.join(row)}.")
    return found


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: queries and documents must be texts, got {value!r:.80}.")
    return value


def _negatives(row: Mapping[str, Any]) -> list[Any]:
    listed: Any = next((row[name] for name in _NEGATIVES if row.get(name) is not None), [])
    first = listed if isinstance(listed, list) else [listed]
    more = [row[name] for name in row if _numbered(name) and row[name] is not None]
    return first + more


def _numbered(name: str) -> bool:
    stem, _, number = name.rpartition("_")
    return number.isdigit() and (stem == "negative" or (not stem and int(number) > 2))


def _scores(row: Mapping[str, Any], count: int, where: str) -> list[float]:
    listed = next((row[name] for name in _SCORES if isinstance(row.get(name), list)), None)
    if listed is None:
        return []
    good = all(isinstance(score, int | float) and math.isfinite(score) for score in listed)
    if not good or len(listed) != count:
        raise DataError(f"{where} needs a finite score for each of its {count} documents, got {listed!r:.100}.")
    return [float(score) for score in listed]

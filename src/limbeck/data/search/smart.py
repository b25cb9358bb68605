"""Test collections in the format of the SMART system, such as Cranfield and CISI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from limbeck.data.search.collection import SearchData
from limbeck.data.search.gather import Judged, gather
from limbeck.data.search.report import SearchReport
from limbeck.errors import DataError

_FIELD = re.compile(r"\.(?P<letter>[A-Z])\s*")
_FILES = {
    "documents": ("*.ALL", "*.all*"),
    "queries": ("*.QRY", "*.qry"),
    "judgements": ("*.REL", "*qrel"),
}


def is_smart(folder: Path) -> bool:
    """Whether a folder holds files of documents, queries and judgements by their usual names."""
    return all(_file(folder, what) for what in _FILES)


def read_smart(folder: Path) -> tuple[SearchData, SearchReport]:
    """A folder with documents (``*.ALL``), queries (``*.QRY``) and judgements (``*.REL`` or ``*qrel``), as latin-1.

    A record begins with ``.I ID``; ``.T`` is its title and ``.W`` its text, which together make a document. Judgements have
    a line for each query and document. Where a query's ids are not those of the judgements but every number of these is a
    position in the queries' file (Cranfield), judgements name queries by position, from 1. All judgements are the part
    ``test``: divide the queries with :func:`split_queries`.

    Grades: files number degrees of relevance in different directions (Cranfield's code is 1 for a complete answer and 4 for
    minimum interest), so that every pair counts as relevant, of grade 1, but for those with a code below 0, of grade 0.
    Cranfield has one of these for each query; its readme does not say what -1 means.

    Raises:
        DataError: a file is missing or damaged, or the collection contradicts itself (:func:`gather`).
    """
    paths = {what: _file(folder, what) for what in _FILES}
    missing = [what for what, path in paths.items() if path is None]
    if missing:
        raise DataError(f"'{folder}' has no file of {missing[0]} ({' or '.join(_FILES[missing[0]])}).")
    documents, queries = (
        list(_records(path)) for what in ("documents", "queries") if (path := paths[what]) is not None
    )
    judged = list(_judgements(paths["judgements"])) if paths["judgements"] is not None else []
    notes = []
    if not {query for query, _, _ in judged} <= {name for name, _ in queries}:
        judged = _by_position(folder, judged, [name for name, _ in queries])
        notes = ["judgements name queries by position, not by id"]
    return gather(folder.name, documents, queries, {"test": judged}, notes)


def _file(folder: Path, what: str) -> Path | None:
    found = sorted(path for pattern in _FILES[what] for path in folder.glob(pattern))
    return found[0] if found else None


def _records(path: Path) -> Iterator[tuple[str, str]]:
    name, letter, fields = "", "", dict[str, list[str]]()
    for line in path.read_text(encoding="latin-1").split("\n"):
        field = _FIELD.fullmatch(line)
        if line.startswith(".I "):
            if name:
                yield name, _text(fields)
            name, letter, fields = line[3:].strip().lstrip("0") or "0", "", {}
        elif field:
            letter = field["letter"]
        elif letter:
            fields.setdefault(letter, []).append(line)
    if not name:
        raise DataError(f"'{path}' holds no record: none of its lines begins with '.I '.")
    yield name, _text(fields)


def _text(fields: dict[str, list[str]]) -> str:
    return " ".join(" ".join(fields.get("T", []) + fields.get("W", [])).split())


def _judgements(path: Path) -> Iterator[Judged]:
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) < 2 or not all(cell.isdigit() for cell in cells[:2]):
            raise DataError(
                f"'{path}', line {number}, must begin with the numbers of a query and a document: {line!r:.80}."
            )
        yield cells[0], cells[1], 0 if cells[2:3] and cells[2].startswith("-") else 1


def _by_position(folder: Path, judged: list[Judged], names: list[str]) -> list[Judged]:
    beyond = next((query for query, _, _ in judged if not 1 <= int(query) <= len(names)), None)
    if beyond is not None:
        raise DataError(
            f"'{folder}': query {beyond} is judged, which is neither an id nor a position of the {len(names)}."
        )
    return [(names[int(query) - 1], document, grade) for query, document, grade in judged]

"""``load_search``: a collection from one setting."""

from __future__ import annotations

import os
from pathlib import Path

from limbeck.data.search.beir import is_beir, read_beir
from limbeck.data.search.collection import SearchData
from limbeck.data.search.examples import read_examples
from limbeck.data.search.generated import SYNONYMS, generated
from limbeck.data.search.report import SearchReport
from limbeck.data.search.smart import is_smart, read_smart
from limbeck.errors import DataError

PREFIX = "search:"


def search_of(spec: str) -> str | None:
    """The collection that a data setting means, as ``load_search`` takes it: what follows ``search:``; None for other data."""
    return spec.removeprefix(PREFIX) if spec.startswith(PREFIX) else None


def load_search(spec: str | os.PathLike[str], *, header: bool = True) -> tuple[SearchData, SearchReport]:
    """A collection, and what was left out of it.

    spec: a folder as BEIR or NanoBEIR has them (:func:`read_beir`), a folder of a test collection in SMART's format, such as
        Cranfield and CISI (:func:`read_smart`), a file with a training example in each row (:func:`read_examples`), or
        ``synonyms(train=1600, …)``, which is generated (:func:`synonyms`).
    header: whether the first line of a .tsv or .csv file of examples names its columns.

    Everything is held in memory.

    Raises:
        DataError: it is missing, damaged, of none of these kinds, or contradicts itself.
        MissingExtraError: a package for the format is not installed.
    """
    if SYNONYMS.fullmatch(os.fspath(spec)):
        return generated(os.fspath(spec))
    path = Path(spec).expanduser()
    if path.is_file():
        return read_examples(path, header=header)
    if not path.is_dir():
        raise DataError(f"data: there is no file or folder '{path}'.")
    if is_smart(path) and not is_beir(path):
        return read_smart(path)
    return read_beir(path)

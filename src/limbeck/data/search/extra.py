"""Queries without judgements, of which a student learns where the teacher puts them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.search.collection import SearchData, Texts
from limbeck.data.seeds import stream
from limbeck.data.text.readers import not_utf8, read_file
from limbeck.errors import DataError

_COLUMNS = ("query", "text", "question", "0")
_STREAM = 2  # beside those of the order and of the negatives


def read_queries(path: Path) -> tuple[str, ...]:
    """The texts of a file, each once: the lines of a ``.txt``, or the column ``query`` (or ``text``, ``question``) of a table.

    Raises:
        DataError: there is no such file or column, it is not UTF-8, or no text is in it.
    """
    if not path.is_file():
        raise DataError(f"extra_queries: there is no file '{path}'.")
    if path.suffix.lower() == ".txt":
        try:
            found = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from error
    else:
        rows = read_file(path).rows
        name = next((name for name in _COLUMNS if name in rows[0]), None)
        if name is None:
            raise DataError(f"extra_queries: '{path}' has no column 'query' or 'text'; it has {', '.join(rows[0])}.")
        found = [str(row[name]) for row in rows if row.get(name)]
    texts = tuple(dict.fromkeys(text.strip() for text in found if text.strip()))
    if not texts:
        raise DataError(f"extra_queries: '{path}' holds no text.")
    return texts


def with_extra(data: SearchData, texts: tuple[str, ...]) -> tuple[SearchData, Tensor]:
    """The collection with further queries that nothing answers, and their places, int64."""
    count = len(data.queries)
    ids = tuple(f"extra-{number}" for number in range(len(texts)))
    clashing = set(ids) & set(data.queries.ids)
    if clashing:
        raise DataError(f"extra_queries: {data.name} has a query '{min(clashing)}' of its own; give it another id.")
    queries = Texts((*data.queries.ids, *ids), (*data.queries.texts, *texts))
    return replace(data, queries=queries), torch.arange(count, count + len(texts))


@dataclass(frozen=True)
class ExtraQueries:
    """Which extra queries go with a batch.

    places: (E,) int64, in the collection. seed: of their order, which is drawn anew for each epoch; where an epoch's batches
    have need of more than there are, they come again.
    """

    places: Tensor
    seed: int

    def at(self, epoch: int, start: int, count: int) -> Tensor:
        """(count,) places, of those from number ``start`` of an epoch on."""
        order = torch.randperm(len(self.places), generator=stream(self.seed, epoch, _STREAM))
        return self.places[order[torch.arange(start, start + count) % len(order)]]

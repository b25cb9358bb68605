"""A collection to be searched: documents, queries, and which document answers which query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from limbeck.data.seeds import stream
from limbeck.errors import DataError, SettingError, check_number, unknown_name

Judgements = Mapping[str, Mapping[str, int]]
"""For the id of each query the ids of judged documents with their grades; 1 and more is relevant."""


@dataclass(frozen=True)
class Texts:
    """Texts with ids, in an order. A place is a number in that order, from 0."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each id."""
        return {name: place for place, name in enumerate(self.ids)}

    @cached_property
    def originals(self) -> Tensor:
        """(N,) int64: for each text the place of the first one that is the same, often itself."""
        first: dict[str, int] = {}
        return torch.tensor([first.setdefault(text, place) for place, text in enumerate(self.texts)])


@dataclass(frozen=True)
class Example:
    """A query with a document that answers it, by their places, and perhaps some that do not.

    scores: a teacher's, of the positive and then of each negative; empty where there are none.
    """

    query: int
    positive: int
    negatives: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class SearchData:
    """A collection.

    judgements: by part, such as ``train``, ``val`` and ``test``; every id in them is among the queries and documents, and
    every query has a relevant document. examples: for training, where a file holds such; else they follow from the
    judgements of ``train``.
    """

    name: str
    documents: Texts
    queries: Texts
    judgements: Mapping[str, Judgements]
    examples: tuple[Example, ...] = ()

    def part(self, part: str) -> Judgements:
        """The judgements of one part. Raises SettingError where there is no such part."""
        if part not in self.judgements:
            raise SettingError(f"{self.name}: {unknown_name('part', part, self.judgements)}")
        return self.judgements[part]

    def training(self, part: str = "train") -> tuple[Example, ...]:
        """The examples of a part: those of the file, or one for each query and each document that is relevant to it."""
        if self.examples and part == "train":
            return self.examples
        queries, documents = self.queries.places, self.documents.places
        return tuple(
            Example(queries[query], documents[document])
            for query, judged in self.part(part).items()
            for document, grade in judged.items()
            if grade > 0
        )

    @cached_property
    def relevant(self) -> Tensor:
        """(R,) int64, sorted: query · len(documents) + document of every relevant pair of any part, by their places.

        A document counts by its first copy (see ``Texts.originals``).
        """
        queries, documents, first = self.queries.places, self.documents.places, self.documents.originals.tolist()
        pairs = {
            (queries[query], first[documents[document]])
            for judgements in self.judgements.values()
            for query, judged in judgements.items()
            for document, grade in judged.items()
            if grade > 0
        }
        pairs |= {(example.query, first[example.positive]) for example in self.examples}
        return torch.tensor(sorted(query * len(self.documents) + document for query, document in pairs))

    def is_relevant(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Whether documents answer queries: bool, from two int64 tensors of places that can be broadcast."""
        keys = queries * len(self.documents) + self.documents.originals[documents]
        return torch.isin(keys, self.relevant)


def split_queries(data: SearchData, seed: int, *, val: float = 0.1, test: float = 0.2) -> SearchData:
    """The collection with its queries, of whatever part, drawn anew into ``train``, ``val`` and ``test``.

    val, test: shares of the queries, at least one query where above 0. The same queries fall into the same parts for the
    same seed; documents are shared by all parts.

    Raises:
        SettingError: shares out of range. DataError: too few queries for the parts, or examples from a file, whose queries
        cannot be told apart from those of the parts.
    """
    for name, share in (("val", val), ("test", test)):
        check_number(name, share, low=0.0)
    if val + test >= 1:
        raise SettingError(
            f"val and test must leave queries for training: their sum is {val + test:g}, not less than 1."
        )
    if data.examples:
        raise DataError(f"{data.name} holds training examples, not judgements, so that its queries cannot be divided.")
    judged: dict[str, dict[str, int]] = {}
    for judgements in data.judgements.values():
        for query, documents in judgements.items():
            judged.setdefault(query, {}).update(documents)
    names = [query for query in data.queries.ids if query in judged]
    counts = {part: max(1, round(share * len(names))) if share else 0 for part, share in (("val", val), ("test", test))}
    if sum(counts.values()) >= len(names):
        raise DataError(f"{data.name} has {len(names)} judged queries, too few for train, val and test.")
    order = [names[place] for place in torch.randperm(len(names), generator=stream(seed)).tolist()]
    ends = (counts["test"], counts["test"] + counts["val"])
    parts = {"train": order[ends[1] :], "val": order[ends[0] : ends[1]], "test": order[: ends[0]]}
    found = {part: {query: judged[query] for query in some} for part, some in parts.items() if some}
    return replace(data, judgements=found)

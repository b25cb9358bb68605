"""A collection as a run is given it: divided, in pairs, in the tokens of the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from limbeck.data.search.batches import PairTexts
from limbeck.data.search.bm25 import bm25
from limbeck.data.search.collection import Example, SearchData
from limbeck.data.search.found import Found
from limbeck.data.search.known import KnownTexts
from limbeck.data.search.negatives import Mined, hard_negatives
from limbeck.data.search.pairs import Pairs, training_pairs
from limbeck.data.search.report import SearchReport
from limbeck.data.search.tokens import Tokenising

_FOUND_FOR_EACH = 10
"""Documents that are searched for each negative: some of them answer the query."""


@dataclass(frozen=True)
class Miner:
    """What finds hard negatives.

    find: from a collection, places (Q,) of queries and a number K to the K documents that it puts first. scores: from places
    (P,) of queries and (P,) of documents to the teacher's scores (P,), where the search is the teacher's. margin, share: what
    is too near to the positive (see :func:`hard_negatives`).
    """

    find: Callable[[SearchData, Tensor, int], Found]
    scores: Callable[[Tensor, Tensor], Tensor] | None = None
    margin: float | None = None
    share: float | None = None

    def mine(self, data: SearchData, examples: Sequence[Example], count: int) -> Mined:
        """The examples with ``count`` hard negatives each, as far as there are."""
        depth = min(len(data.documents), _FOUND_FOR_EACH * (1 + count))
        found = self.find(data, torch.tensor(sorted({example.query for example in examples})), depth)
        if self.scores is None:
            return hard_negatives(data, examples, found, count)
        queries, positives = (
            torch.tensor(places) for places in zip(*((e.query, e.positive) for e in examples), strict=True)
        )
        return hard_negatives(
            data,
            examples,
            found,
            count,
            scores=found.scores,
            positive_scores=self.scores(queries, positives),
            margin=self.margin,
            share=self.share,
        )


BM25 = Miner(bm25)


@dataclass(frozen=True)
class Reading:
    """How a network reads queries and documents."""

    queries: Tokenising
    documents: Tokenising

    @cached_property
    def key(self) -> str:
        """Networks with the same one read the same tokens."""
        return "\n".join(
            f"{name}={value}" for part in (self.queries, self.documents) for name, value in part.facts().items()
        )

    def of(self, data: SearchData) -> PairTexts:
        """The texts of a collection as this network reads them."""
        return PairTexts(self.queries(data.queries.texts), self.documents(data.documents.texts))


@dataclass(frozen=True)
class SearchCorpus:
    """A collection for a run.

    data: with its parts. report: what was left out of it. pairs: by part, those of ``train`` and where there are such of
    ``val`` and ``test``. student, teacher: the readings of the networks; both are the same where there is no teacher.
    texts: the tokens by the key of a reading. tokenizer: of encoders that are made in place. similarity: how the teacher
    scores, or else the first student. mined: what hard negatives were found, in words. known: what teachers, by what they were
    given as, said of the texts already. own_scores: whether the teacher scores each query's own documents alone.
    extra: places of queries without judgements; None where none were given.
    """

    data: SearchData
    report: SearchReport
    pairs: Mapping[str, Pairs]
    student: Reading
    teacher: Reading
    texts: Mapping[str, PairTexts]
    tokenizer: Any
    similarity: str
    mined: str = ""
    known: Mapping[object, KnownTexts] = field(default_factory=dict)
    own_scores: bool = False
    extra: Tensor | None = None

    @property
    def name(self) -> str:
        """The collection's."""
        return self.data.name

    @property
    def student_texts(self) -> PairTexts:
        """In the students' tokens."""
        return self.texts[self.student.key]

    @property
    def teacher_texts(self) -> PairTexts | None:
        """In the teacher's tokens; None where these are the students'."""
        return None if self.teacher.key == self.student.key else self.texts[self.teacher.key]


def corpus_of(
    data: SearchData,
    report: SearchReport,
    student: Reading,
    teacher: Reading | None,
    *,
    tokenizer: Any,
    similarity: str,
    negatives: int,
    mining: Miner | None,
    seed: int,
    known: Mapping[object, KnownTexts] | None = None,
    own_scores: bool = False,
    extra: Tensor | None = None,
) -> SearchCorpus:
    """A collection that is divided already, in pairs and tokens.

    negatives: documents beside its own that each query brings into a batch: those of its example first, then what ``mining``
    finds that does not answer it, then random ones. Queries of validation and test bring as many random ones, and the first
    of their documents counts. The other arguments are those of :class:`SearchCorpus`.

    Raises:
        DataError, SettingError: see :func:`training_pairs` and :func:`hard_negatives`.
        MissingExtraError: bm25s is not installed.
    """
    examples, mined = data.training(), None
    if mining is not None and any(len(example.negatives) < negatives for example in examples):
        mined = mining.mine(data, examples, negatives)
        examples = _behind_their_own(examples, mined.examples)
    pairs = {"train": training_pairs(data, examples, negatives=negatives, seed=seed)}
    for part in ("val", "test"):
        if part in data.judgements:
            first = {example.query: example for example in reversed(data.training(part))}
            pairs[part] = training_pairs(data, list(first.values())[::-1], negatives=negatives, seed=seed)
    teacher = teacher or student
    texts = {reading.key: reading.of(data) for reading in {r.key: r for r in (student, teacher)}.values()}
    return SearchCorpus(
        data,
        report,
        pairs,
        student,
        teacher,
        texts,
        tokenizer,
        similarity,
        mined="" if mined is None else f"{mined}{_filled(pairs['train'])}",
        known=known or {},
        own_scores=own_scores,
        extra=extra,
    )


def _filled(pairs: Pairs) -> str:
    return f"; {pairs.random:,} random documents stand in" if pairs.random else ""


def _behind_their_own(examples: Sequence[Example], mined: Sequence[Example]) -> tuple[Example, ...]:
    """The examples with what was mined behind their own negatives; scores from a file, which it has none of, are dropped."""
    return tuple(
        replace(own, negatives=tuple(dict.fromkeys((*own.negatives, *more.negatives))), scores=())
        for own, more in zip(examples, mined, strict=True)
    )

"""A collection as a run is given it: divided, in pairs, in the tokens of the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch

from limbeck.data.search.batches import PairTexts
from limbeck.data.search.bm25 import bm25
from limbeck.data.search.collection import Example, SearchData
from limbeck.data.search.negatives import hard_negatives
from limbeck.data.search.pairs import Pairs, training_pairs
from limbeck.data.search.report import SearchReport
from limbeck.data.search.tokens import Tokenising

Mining = Literal["bm25", "random"]

_FOUND_FOR_EACH = 10
"""Documents that BM25 is asked for, for each negative: some of them answer the query."""


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
    scores, or else the first student.
    """

    data: SearchData
    report: SearchReport
    pairs: Mapping[str, Pairs]
    student: Reading
    teacher: Reading
    texts: Mapping[str, PairTexts]
    tokenizer: Any
    similarity: str

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
    mining: Mining,
    seed: int,
) -> SearchCorpus:
    """A collection that is divided already, in pairs and tokens.

    negatives: documents beside its own that each query brings into a batch: those of its example first, then what BM25
    finds that does not answer it (``mining="bm25"``), then random ones. Queries of validation and test bring as many random
    ones, and the first of their documents counts.

    Raises:
        DataError, SettingError: see :func:`training_pairs` and :func:`hard_negatives`.
        MissingExtraError: bm25s is not installed.
    """
    examples = data.training()
    if mining == "bm25" and any(len(example.negatives) < negatives for example in examples):
        examples = _with_mined(data, examples, negatives)
    pairs = {"train": training_pairs(data, examples, negatives=negatives, seed=seed)}
    for part in ("val", "test"):
        if part in data.judgements:
            first = {example.query: example for example in reversed(data.training(part))}
            pairs[part] = training_pairs(data, list(first.values())[::-1], negatives=negatives, seed=seed)
    teacher = teacher or student
    texts = {reading.key: reading.of(data) for reading in {r.key: r for r in (student, teacher)}.values()}
    return SearchCorpus(data, report, pairs, student, teacher, texts, tokenizer, similarity)


def _with_mined(data: SearchData, examples: Sequence[Example], negatives: int) -> tuple[Example, ...]:
    """The examples with what BM25 finds behind their own negatives; a teacher's scores, which it has none of, are dropped."""
    count = min(len(data.documents), _FOUND_FOR_EACH * (1 + negatives))
    found = bm25(data, torch.tensor(sorted({example.query for example in examples})), count)
    mined = hard_negatives(data, examples, found, count=negatives).examples
    return tuple(
        replace(own, negatives=tuple(dict.fromkeys((*own.negatives, *more.negatives))), scores=())
        for own, more in zip(examples, mined, strict=True)
    )

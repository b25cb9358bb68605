"""Hard negatives: documents that a search puts high and that do not answer the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from limbeck.data.search.collection import Example, SearchData
from limbeck.data.search.found import Found
from limbeck.errors import DataError, SettingError, check_number, check_whole


@dataclass(frozen=True)
class Mined:
    """Examples with negatives.

    relevant: candidates that were left out since the collection says that they answer the query. near: those left out since
    the teacher's score is too near to the positive's. few: examples with fewer negatives than were asked for.
    """

    examples: tuple[Example, ...]
    relevant: int
    near: int
    few: int

    def __str__(self) -> str:
        count = sum(len(example.negatives) for example in self.examples)
        few = f", of which {self.few:,} got fewer than were asked for" if self.few else ""
        near = f", {self.near:,} that the teacher scores too near to the positive" if self.near else ""
        return (
            f"{count:,} hard negatives for {len(self.examples):,} examples{few}; left out: {self.relevant:,} candidates that "
            f"are relevant{near}"
        )


def hard_negatives(
    data: SearchData,
    examples: Sequence[Example],
    found: Found,
    count: int,
    *,
    skip: int = 0,
    scores: Tensor | None = None,
    positive_scores: Tensor | None = None,
    margin: float | None = None,
    share: float | None = None,
) -> Mined:
    """The first ``count`` documents that a search found for each example's query and that are no answers, best first.

    Left out: documents that answer the query by any part's judgements, copies of them and of each other, and where the
    teacher's scores are given false negatives, which nobody judged: those whose score is above ``positive - margin``, or
    above ``share · positive`` (0.95 is TopK-PercPos of arXiv 2407.15831, for positive scores).

    Args:
        found: of the queries of all examples, with as many candidates as are to be looked at: BM25's, or the teacher's.
        skip: how many of the first candidates, relevant ones not counted, are passed over.
        scores: (Q, K) the teacher's scores of the candidates; the negatives then carry them. positive_scores: (E,) the
            teacher's of each example's positive.
        margin: a difference of scores, at least 0. share: in (0, 1].

    Raises:
        SettingError: a setting is out of range, or a margin or share without scores.
        DataError: ``found`` lacks a query of the examples, or scores are of another size.
    """
    check_whole("count", count, low=1)
    check_whole("skip", skip, low=0)
    _check_filter(examples, found, scores, positive_scores, margin, share)
    rows = {query: row for row, query in enumerate(found.queries.tolist())}
    originals = data.documents.originals
    relevant = near = few = 0
    mined = []
    for number, example in enumerate(examples):
        row = rows.get(example.query)
        if row is None:
            raise DataError(f"{data.name}: nothing was searched for query '{data.queries.ids[example.query]}'.")
        places = found.documents[row]
        copies = originals[places]
        wrong = data.is_relevant(torch.tensor(example.query), places) | (copies == originals[example.positive])
        close = torch.zeros_like(wrong)
        if scores is not None and positive_scores is not None and (margin is not None or share is not None):
            limit = float(positive_scores[number])
            limit = limit - margin if margin is not None else limit * (share or 1.0)
            close = (scores[row] > limit) & ~wrong
        left: list[int] = (~wrong).nonzero().flatten().tolist()[skip:]
        kept = _first_copies([place for place in left if not close[place]], copies.tolist())[:count]
        relevant, near, few = relevant + int(wrong.sum()), near + int(close.sum()), few + (len(kept) < count)
        told: tuple[float, ...] = ()
        if scores is not None and positive_scores is not None:
            told = (float(positive_scores[number]), *scores[row][kept].tolist())
        mined.append(replace(example, negatives=tuple(places[kept].tolist()), scores=told))
    return Mined(tuple(mined), relevant, near, few)


def _first_copies(places: list[int], copies: list[int]) -> list[int]:
    first: dict[int, int] = {}
    for place in places:
        first.setdefault(copies[place], place)
    return list(first.values())


def _check_filter(
    examples: Sequence[Example],
    found: Found,
    scores: Tensor | None,
    positive_scores: Tensor | None,
    margin: float | None,
    share: float | None,
) -> None:
    if margin is not None and share is not None:
        raise SettingError("give either margin or share, two limits for what is too near to the positive.")
    if margin is not None:
        check_number("margin", margin, low=0.0)
    if share is not None:
        check_number("share", share, low=0.0, high=1.0, open_low=True)
    if (scores is None) != (positive_scores is None) or (scores is None and (margin is not None or share is not None)):
        raise SettingError("false negatives are known by a teacher's scores: give scores and positive_scores together.")
    if scores is not None and positive_scores is not None:
        wanted = (tuple(found.documents.shape), (len(examples),))
        given = (tuple(scores.shape), tuple(positive_scores.shape))
        if given != wanted:
            raise DataError(f"scores must be of shapes {wanted[0]} and {wanted[1]}, got {given[0]} and {given[1]}.")

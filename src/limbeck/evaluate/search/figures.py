"""What an evaluation holds of encoders, and what each figure may be when it is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limbeck.evaluate.kinds import Count, Number, Positive, Share


@dataclass(frozen=True)
class SearchFigures:
    """Means over ``queries`` queries, each of which searched all ``documents`` documents; see :mod:`limbeck.searching`."""

    queries: Count
    documents: Count
    ndcg_10: Share
    mrr_10: Share
    recall_10: Share
    recall_100: Share
    map: Share


@dataclass(frozen=True)
class Followed:
    """How far a student follows its teacher in a search.

    depth: so many first documents of each query are compared. kept: share of the relevant documents among the teacher's that
    are among the student's too; None where the teacher finds none. gained: relevant documents that the student alone finds.
    overlap: mean share of the first documents that are the same. ndcg_kept: the student's nDCG@10 over the teacher's.

    cka_queries, cka_documents: linear CKA of the embeddings, 1 where they are the same up to a rotation and a scale, over
    ``sample`` documents at most. cosine_queries, cosine_documents: mean cosine of both networks' embeddings of one text; None
    where they differ in width.
    """

    depth: Count
    kept: Share | None
    gained: Count
    overlap: Share
    ndcg_kept: Number | None
    sample: Count
    cka_queries: Number | None
    cka_documents: Number | None
    cosine_queries: Number | None
    cosine_documents: Number | None


@dataclass(frozen=True)
class MissedQuery:
    """A query whose relevant documents the teacher finds among its first ones and the student does not.

    query: its id. missed, both: ids of relevant documents that the teacher alone finds, and both. document: the beginning of
    the first that is missed; instead: that of the document that the student puts first. ndcg_10: of student and teacher.
    """

    query: str
    text: str
    missed: tuple[str, ...]
    both: tuple[str, ...]
    document: str
    instead: str
    ndcg_10: Share
    teacher_ndcg_10: Share


@dataclass(frozen=True)
class IndexCost:
    """What a network costs in search: numbers of an embedding, bytes of all documents' embeddings, documents that are encoded
    a second, and median milliseconds of one query from its tokens to its documents, and of the search alone."""

    width: Count
    index_bytes: Count
    documents_per_second: Positive
    query_ms: Positive
    search_ms: Positive


@dataclass(frozen=True)
class IndexRatios:
    """How many times smaller or faster the student is: the teacher's figure over its own, of speeds the other way round."""

    index_bytes: Positive
    documents_per_second: Positive
    query_ms: Positive


@dataclass(frozen=True)
class IndexCosts:
    """Costs of search on one device."""

    device: str
    networks: Mapping[str, IndexCost]
    ratios: Mapping[str, IndexRatios] | None

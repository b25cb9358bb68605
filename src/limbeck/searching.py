"""What an encoder finds for queries of a collection, and what a student finds and misses beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.search import Found, KnownTexts, PairTexts, SearchData, TokenRows
from limbeck.errors import NonFiniteError
from limbeck.evaluate.search import SearchCost, SearchScore, beside, embed, find, make_index, score, search_cost

FIGURES = {"ndcg_10": "nDCG@10", "mrr_10": "RR@10", "recall_100": "R@100", "map": "AP"}
"""What a run calls a figure, and what ir_measures does."""
_MEASURES = [*FIGURES.values(), "R@10", "Success@1", "Success@5"]
_DEPTH = 1000
_LOOKED_AT = _NDCG = 10
_TIMED = 20


@dataclass(frozen=True)
class Searched:
    """What an encoder found for the queries of a part: documents, figures by query, and what it costs.

    embeddings: of the queries that were asked and of all documents, (Q, D) and (N, D), where they were to be kept.
    documents_of: whose documents were searched, where it encodes queries alone.
    """

    found: Found
    score: SearchScore
    cost: SearchCost
    embeddings: tuple[Tensor, Tensor] | None = None
    documents_of: str | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Means over the queries, in [0, 1], by the names of ``FIGURES``, their number, and the bytes of the index."""
        means = {name: self.score.means[measure] for name, measure in FIGURES.items()}
        return {"queries": float(self.score.count), **means, "index_bytes": float(self.cost.index_bytes)}


def searched(
    network: nn.Module,
    data: SearchData,
    texts: PairTexts,
    *,
    similarity: str,
    batch_size: int,
    device: torch.device,
    documents: KnownTexts | None = None,
    part: str = "test",
    keep: bool = False,
) -> Searched:
    """Search all documents for the queries of a part; MAP is of the first 1000 documents. Every process does all of it.

    keep: whether the embeddings are kept.

    documents: those that are searched, where the network does not encode them, or did so before.

    Raises:
        DataError: embeddings that are not finite. MissingExtraError: ir_measures is not installed.
    """
    places, queries = _asked(data, texts, part)
    encoder, rows = (network, texts.documents) if documents is None else (documents.encoder, documents.texts.documents)
    embedded = _documents(encoder, rows, documents, batch_size, device)
    index = make_index(embedded, similarity=similarity)
    asked = embed(network, queries, batch_size=batch_size, device=device)
    found = find(index, asked, places, min(_DEPTH, len(data.documents)))
    cost = search_cost(
        network,
        index,
        queries,
        rows,
        document_encoder=encoder,
        texts=batch_size,
        repeats=_TIMED,
        batch_size=batch_size,
        device=device,
    )
    lent = None if documents is None or documents.encoder is network else documents.name
    result = score(data, part, found, _MEASURES)
    return Searched(found, result, cost, (asked, embedded) if keep else None, lent)


def ndcg_of(
    network: nn.Module,
    data: SearchData,
    texts: PairTexts,
    *,
    similarity: str,
    batch_size: int,
    device: torch.device,
    part: str,
    documents: KnownTexts | None = None,
) -> float:
    """nDCG@10 of a search of all documents for the queries of a part, in [0, 1].

    documents: those that are searched, where the network does not encode them.

    Raises:
        NonFiniteError: embeddings that are not finite. MissingExtraError: ir_measures is not installed.
    """
    places, queries = _asked(data, texts, part)
    encoder, rows = (network, texts.documents) if documents is None else (documents.encoder, documents.texts.documents)
    embedded = _documents(encoder, rows, documents, batch_size, device)
    asked = embed(network, queries, batch_size=batch_size, device=device)
    if not (embedded.isfinite().all() and asked.isfinite().all()):
        raise NonFiniteError("the network's embeddings of the collection are NaN or infinite.")
    found = find(make_index(embedded, similarity=similarity), asked, places, min(_NDCG, len(data.documents)))
    measure = FIGURES["ndcg_10"]
    return score(data, part, found, [measure]).means[measure]


def _documents(
    encoder: nn.Module, rows: TokenRows, known: KnownTexts | None, batch_size: int, device: torch.device
) -> Tensor:
    """Embeddings (N, D) of all documents, encoded now unless they were before."""
    if known is not None and known.embedded is not None:
        return known.embedded.documents
    return embed(encoder, rows, batch_size=batch_size, device=device)


def _asked(data: SearchData, texts: PairTexts, part: str) -> tuple[Tensor, TokenRows]:
    """The places of a part's queries, and their tokens."""
    places = torch.tensor([data.queries.places[query] for query in data.part(part)])
    return places, texts.queries.some(places)


def told_beside(data: SearchData, student: Searched, teacher: Searched | None) -> Mapping[str, Any]:
    """Figures, costs, and for each query what was found among the first documents, for a file that people read.

    Queries where the student misses most of what the teacher finds come first.
    """
    names = {"student": student, **({} if teacher is None else {"teacher": teacher})}
    depth = min(_LOOKED_AT, len(data.documents))
    # Without a teacher the student is beside itself, and nothing is alone.
    compared = beside(data, "test", student.found, (teacher or student).found, depth=depth)
    told: dict[str, Any] = {
        "figures": {who: each.figures for who, each in names.items()},
        **({} if student.documents_of is None else {"documents_of": student.documents_of}),
        "cost": {who: vars(each.cost) for who, each in names.items()},
    }
    if teacher is not None:
        told |= {"depth": depth, "kept": compared.kept, "gained": compared.gained, "overlap": compared.overlap}
    measure = FIGURES["ndcg_10"]
    told["queries"] = [
        {
            "query": one.query,
            "text": data.queries.texts[data.queries.places[one.query]],
            "ndcg_10": {who: each.score.queries[measure][one.query] for who, each in names.items()},
            "found": list(one.both),
            **({} if teacher is None else {"student_alone": list(one.student), "teacher_alone": list(one.teacher)}),
            "neither": list(one.neither),
        }
        for one in sorted(compared.queries, key=lambda one: (-len(one.teacher), one.query))
    ]
    return told

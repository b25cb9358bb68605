"""The parts of an evaluation that say how a student's search follows its teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.evaluate.bench import TEACHER, Figures
from limbeck.evaluate.search import QueryBeside, beside
from limbeck.evaluate.search.figures import Followed, MissedQuery
from limbeck.evaluate.search_bench import SearchBench
from limbeck.evaluate.similarity import linear_cka
from limbeck.searching import FIGURES, Searched

_DEPTH = 10
_SAMPLE = 5000
_SHOWN = 12
_CHARACTERS = 300


def followed_part(bench: SearchBench) -> Figures:
    """How much of what the teacher finds a student finds, and how alike their embeddings are."""
    if TEACHER not in bench.networks:
        bench.say("fidelity is left out: it needs a teacher.")
        return {}
    found = bench.searched()
    return {"followed": {who: _followed(bench, found[who], found[TEACHER]) for who in bench.students}}


def _followed(bench: SearchBench, student: Searched, teacher: Searched) -> Followed:
    depth = min(_DEPTH, len(bench.corpus.data.documents))
    compared = beside(bench.corpus.data, bench.part, student.found, teacher.found, depth=depth)
    assert student.embeddings is not None
    assert teacher.embeddings is not None
    (queries, documents), (their_queries, their_documents) = student.embeddings, teacher.embeddings
    # Every so-manieth, so that a large collection takes no longer than the search.
    some = torch.arange(0, len(documents), max(1, -(-len(documents) // _SAMPLE)))
    measure = FIGURES["ndcg_10"]
    theirs = teacher.score.means[measure]
    return Followed(
        depth=depth,
        kept=compared.kept,
        gained=compared.gained,
        overlap=compared.overlap,
        ndcg_kept=student.score.means[measure] / theirs if theirs else None,
        sample=len(some),
        cka_queries=linear_cka(queries, their_queries),
        cka_documents=linear_cka(documents[some], their_documents[some]),
        cosine_queries=_cosine(queries, their_queries),
        cosine_documents=_cosine(documents[some], their_documents[some]),
    )


def _cosine(one: Tensor, other: Tensor) -> float | None:
    if one.shape != other.shape:
        return None
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double()).mean())


def missed_part(bench: SearchBench) -> Figures:
    """Queries whose relevant documents the teacher finds and a student does not."""
    if TEACHER not in bench.networks:
        bench.say(
            "examples are left out: they are what the teacher finds and a student does not, so they need a teacher."
        )
        return {}
    return {"missed": {who: _missed(bench, who) for who in bench.students}}


def _missed(bench: SearchBench, who: str) -> tuple[MissedQuery, ...]:
    data, found = bench.corpus.data, bench.searched()
    student, teacher = found[who], found[TEACHER]
    depth = min(_DEPTH, len(data.documents))
    compared = beside(data, bench.part, student.found, teacher.found, depth=depth)
    rows = {query: row for row, query in enumerate(student.found.queries.tolist())}
    measure = FIGURES["ndcg_10"]

    def told(one: QueryBeside) -> MissedQuery:
        place = data.queries.places[one.query]
        first = int(student.found.documents[rows[place], 0])
        missed = data.documents.texts[data.documents.places[one.teacher[0]]]
        return MissedQuery(
            query=one.query,
            text=data.queries.texts[place],
            missed=one.teacher,
            both=one.both,
            document=missed[:_CHARACTERS],
            instead=data.documents.texts[first][:_CHARACTERS],
            ndcg_10=student.score.queries[measure][one.query],
            teacher_ndcg_10=teacher.score.queries[measure][one.query],
        )

    return tuple(told(one) for one in compared.missed()[:_SHOWN])

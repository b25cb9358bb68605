"""How a student's search follows its teacher's, what it misses, and what search costs."""

from __future__ import annotations

import html
from collections.abc import Mapping

from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.search.figures import Followed, IndexCost, IndexRatios, MissedQuery
from limbeck.report.evaluation._words import cast, in_order, percent, teachers, three
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

_LISTED = 5


def followed(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """How much of what the teacher finds a student finds, and how alike their embeddings are."""
    found = evaluation.followed
    if not found:
        return []
    first = next(iter(found.values()))
    columns = [
        Column("student", "Its short name", number=False),
        Column("nDCG@10 kept", "The student's over the teacher's"),
        Column("kept", "Share of the relevant documents that the teacher finds which the student finds too"),
        Column("gained", "Relevant documents that the student alone finds"),
        Column("same", "Share of the first documents that are the same"),
        Column("CKA, queries", "Linear CKA of the queries' embeddings; 1 where equal up to a rotation"),
        Column("CKA, documents", "Linear CKA of the documents' embeddings"),
        Column("cosine, queries", "Mean cosine of both networks' embeddings of a query"),
        Column("cosine, documents", "Mean cosine of both networks' embeddings of a document"),
    ]
    rows = [[Cell(who), *_followed(found[who])] for who in in_order(evaluation, found)]
    lead = f"The first {first.depth} documents of each query; CKA of documents over {first.sample:,} of them."
    return [
        Section(f"{prefix}-followed", "Beside the teacher", html=table("Beside the teacher", columns, rows), lead=lead)
    ]


def _followed(found: Followed) -> list[Cell]:
    return [
        figure(found.ndcg_kept, percent),
        figure(found.kept, percent),
        figure(found.gained, lambda value: f"{value:,.0f}"),
        figure(found.overlap, percent),
        figure(found.cka_queries, three),
        figure(found.cka_documents, three),
        figure(found.cosine_queries, three),
        figure(found.cosine_documents, three),
    ]


def missed(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Queries whose relevant documents the teacher finds and a student does not, a table for each student."""
    found = {who: queries for who, queries in (evaluation.missed or {}).items() if queries}
    if not found:
        return []
    shown = cast(evaluation, found, numbers)
    columns = [
        Column("query", "Its id", number=False),
        Column("text", "What is asked", number=False),
        Column("missed", "Relevant documents that the teacher alone finds", number=False),
        Column("the first of them begins", "Its text", number=False),
        Column("first instead", "The document that the student puts first", number=False),
        Column("nDCG@10", "The student's"),
        Column("teacher's", "The teacher's nDCG@10"),
    ]
    body = "".join(
        f'<h3 style="font-size:1rem;margin:1rem 0 .4rem">{html.escape(who)}</h3>'
        + table(f"Missed by {who}", columns, [_missed(each) for each in found[who]])
        for who in shown.students
    )
    lead = f"Those of which most is missed come first.{shown.remark}"
    return [Section(f"{prefix}-missed", "What the teacher finds and a student misses", html=body, lead=lead)]


def _missed(found: MissedQuery) -> list[Cell]:
    more = f" and {len(found.missed) - _LISTED} more" if len(found.missed) > _LISTED else ""
    return [
        Cell(found.query),
        Cell(found.text),
        Cell(", ".join(found.missed[:_LISTED]) + more),
        Cell(found.document),
        Cell(found.instead),
        figure(found.ndcg_10, three),
        figure(found.teacher_ndcg_10, three),
    ]


def index(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """The index, encoding and the time of a query."""
    found = evaluation.index
    if found is None:
        return []
    columns = [
        Column("network", "Its short name", number=False),
        Column("width", "Numbers of an embedding"),
        Column("index", "Bytes of all documents' embeddings"),
        Column("documents/s", "Documents that are encoded a second"),
        Column("ms a query", "Median of one query alone, from its tokens to its documents"),
        Column("ms of search", "Of the search alone in it"),
        Column("index ÷", "The teacher's bytes over the student's"),
        Column("encoding ×", "How many times as fast as the teacher"),
        Column("query ×", "How many times faster the student answers"),
    ]
    ratios = found.ratios or {}
    rows = [[Cell(who), *_index(found.networks[who], ratios.get(who))] for who in in_order(evaluation, found.networks)]
    body = table("Cost of search", columns, rows, teachers(evaluation))
    body += note("Exact search by a product of matrices.")
    return [Section(f"{prefix}-index", "Cost of search", html=body, lead=f"Measured on {found.device}.")]


def _index(found: IndexCost, ratios: IndexRatios | None) -> list[Cell]:
    over = (None, None, None) if ratios is None else (ratios.index_bytes, ratios.documents_per_second, ratios.query_ms)
    return [
        figure(found.width, lambda value: f"{value:,.0f}"),
        figure(found.index_bytes, lambda value: f"{value:,.0f}"),
        figure(found.documents_per_second, lambda value: f"{value:,.1f}"),
        figure(found.query_ms, lambda value: f"{value:.3g}"),
        figure(found.search_ms, lambda value: f"{value:.3g}"),
        *(figure(value, lambda value: f"{value:.1f} ×") for value in over),
    ]

"""Figures of what a search found against the judgements: nDCG, MRR, recall, MAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.data.search import Found, SearchData
from limbeck.errors import DataError, MissingExtraError, SettingError

MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "AP")
"""By the names of the package ir_measures; the mean of RR is MRR, that of AP is MAP."""


@dataclass(frozen=True)
class SearchScore:
    """Figures of ``count`` queries: by measure the mean, in [0, 1], and by query's id each figure."""

    count: int
    means: Mapping[str, float]
    queries: Mapping[str, Mapping[str, float]]


def score(data: SearchData, part: str, found: Found, measures: Sequence[str] = MEASURES) -> SearchScore:
    """What a search found for all queries of a part, by the package ir_measures.

    found: of at least the part's queries, with as many documents as the deepest measure looks at; AP takes all that there
        are, and is lower than over the whole collection where these are few.
    measures: names of ir_measures, such as ``nDCG@10``, ``RR@10``, ``R@100``, ``P@5``, ``AP``.

    The order is that of ``found``: equal scores are not broken anew. Grades below 1 are not relevant; nDCG's gain is the grade
    and its discount log₂(1 + rank).

    Raises:
        SettingError: a measure that the package does not know, or one that looks deeper than was searched.
        DataError: a query of the part was not searched. MissingExtraError: ir_measures is not installed.
    """
    judged = data.part(part)
    searched = found.documents.shape[1]
    # Deeper than all documents no search can look.
    depth = None if searched >= len(data.documents) else searched
    named = {name: _measure(name, depth) for name in dict.fromkeys(measures)}
    run = _run(data, part, found)
    qrels = {query: {name: max(0, grade) for name, grade in grades.items()} for query, grades in judged.items()}
    queries: dict[str, dict[str, float]] = {name: {} for name in named}
    by_measure = {measure: name for name, measure in named.items()}
    import ir_measures

    for metric in ir_measures.iter_calc(list(named.values()), qrels, run):
        queries[by_measure[metric.measure]][metric.query_id] = float(metric.value)
    means = {name: sum(values.values()) / len(judged) for name, values in queries.items()}
    return SearchScore(len(judged), means, queries)


def _measure(name: str, depth: int | None) -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("ir-measures", "retrieval", "scoring a search") from error
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError) as error:
        raise SettingError(f"measures: '{name}' is no measure of ir_measures, as {', '.join(MEASURES)} are.") from error
    cutoff = measure.params.get("cutoff")
    if cutoff is not None and depth is not None and cutoff > depth:
        raise SettingError(f"measures: '{name}' looks at {cutoff} documents, and {depth} were searched for each query.")
    return measure


def _run(data: SearchData, part: str, found: Found) -> dict[str, dict[str, float]]:
    rows = {query: row for row, query in enumerate(found.queries.tolist())}
    names, places = data.documents.ids, data.queries.places
    depth = found.documents.shape[1]
    run = {}
    for query in data.part(part):
        row = rows.get(places[query])
        if row is None:
            raise DataError(f"{data.name} {part}: nothing was searched for query '{query}'.")
        # Whole numbers in the order that was found: the library would sort equal scores by the ids of the documents.
        ranked = enumerate(found.documents[row].tolist())
        run[query] = {names[place]: float(depth - rank) for rank, place in ranked}
    return run

"""What a student finds and misses beside its teacher, query by query."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.data.search import Found, SearchData
from limbeck.errors import check_whole


@dataclass(frozen=True)
class QueryBeside:
    """One query: relevant documents that both, the student alone and the teacher alone put among their first ``depth``, and
    those that neither does, by their ids. overlap: share of the first documents that are the same, whatever they are worth."""

    query: str
    both: tuple[str, ...]
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    neither: tuple[str, ...]
    overlap: float


@dataclass(frozen=True)
class Beside:
    """Student and teacher on ``len(queries)`` queries, each query's first ``depth`` documents.

    kept: share of the relevant documents that the teacher finds which the student finds too, over all queries; None where
    the teacher finds none. gained: how many the student finds that the teacher does not. overlap: the mean over queries.
    """

    depth: int
    queries: tuple[QueryBeside, ...]
    kept: float | None
    gained: int
    overlap: float

    def missed(self) -> list[QueryBeside]:
        """The queries where the student misses what the teacher finds, the most missed first."""
        return sorted((one for one in self.queries if one.teacher), key=lambda one: -len(one.teacher))


def beside(data: SearchData, part: str, student: Found, teacher: Found, *, depth: int = 10) -> Beside:
    """Compare what both found for the queries of a part.

    Raises:
        SettingError: ``depth`` is no whole number of at least 1, or deeper than was searched.
    """
    check_whole("depth", depth, low=1)
    for one in (student, teacher):
        check_whole("documents searched for each query", one.documents.shape[1], low=depth)
    firsts = [_firsts(data, found, depth) for found in (student, teacher)]
    queries = []
    for query, judged in data.part(part).items():
        place = data.queries.places[query]
        ours, theirs = (set(first[place]) for first in firsts)
        relevant = [name for name, grade in judged.items() if grade > 0]
        kinds: dict[tuple[bool, bool], list[str]] = {}
        for name in relevant:
            kinds.setdefault((name in ours, name in theirs), []).append(name)
        queries.append(
            QueryBeside(
                query=query,
                both=tuple(kinds.get((True, True), ())),
                student=tuple(kinds.get((True, False), ())),
                teacher=tuple(kinds.get((False, True), ())),
                neither=tuple(kinds.get((False, False), ())),
                overlap=len(ours & theirs) / depth,
            )
        )
    both, alone = sum(len(one.both) for one in queries), sum(len(one.teacher) for one in queries)
    return Beside(
        depth=depth,
        queries=tuple(queries),
        kept=both / (both + alone) if both + alone else None,
        gained=sum(len(one.student) for one in queries),
        overlap=sum(one.overlap for one in queries) / len(queries),
    )


def _firsts(data: SearchData, found: Found, depth: int) -> dict[int, list[str]]:
    names = data.documents.ids
    rows = zip(found.queries.tolist(), found.documents[:, :depth].tolist(), strict=True)
    return {query: [names[place] for place in row] for query, row in rows}

"""From rows as files hold them to a collection: what is left out is counted, what contradicts itself is an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from limbeck.data.search import report
from limbeck.data.search.collection import Example, SearchData, Texts
from limbeck.data.search.report import SearchReport
from limbeck.errors import DataError

Row = tuple[str, str]
"""An id and a text."""
Judged = tuple[str, str, int]
"""The ids of a query and a document, and the grade."""


_KNOWN_PARTS = ("train", "val", "test")


@dataclass
class _Skipped:
    """What is left out, by reason."""

    ids: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.ids.setdefault(reason, []).append(name)

    def told(self) -> dict[str, tuple[str, ...]]:
        return {reason: tuple(ids) for reason, ids in self.ids.items()}


def gather(
    name: str,
    documents: Iterable[Row],
    queries: Iterable[Row],
    judgements: Mapping[str, Iterable[Judged]],
    notes: Sequence[str] = (),
) -> tuple[SearchData, SearchReport]:
    """A collection of judged queries.

    Left out and counted: texts that are empty, ids that come again with the same text, judgements of documents or queries
    that are not there, queries without judgements, and queries of a part to which nothing is relevant.

    Raises:
        DataError: an id has two texts, a pair is judged twice with different grades, or nothing is left of documents,
            queries or a part.
    """
    skipped = _Skipped()
    found, empty = _texts(f"{name}: document", documents, report.EMPTY_DOCUMENT, skipped)
    asked, silent = _texts(f"{name}: query", queries, report.EMPTY_QUERY, skipped)
    for what, kept in (("documents", found), ("queries", asked)):
        if not kept:
            raise DataError(f"{name} has no {what} with text.")
    parts = {}
    for part, rows in judgements.items():
        parts[part] = _judged(f"{name} {part}", rows, found, asked, (empty, silent), skipped)
    for query in asked:
        if not any(query in part for part in parts.values()):
            skipped.add(report.NO_JUDGEMENT, query)
    data = SearchData(
        name, _as_texts(found), _as_texts(asked), {part: _with_answers(rows, skipped) for part, rows in parts.items()}
    )
    told = SearchReport(
        documents=len(found),
        queries=len(asked),
        judgements={part: sum(map(len, rows.values())) for part, rows in data.judgements.items()},
        skipped=skipped.told(),
        notes=(*notes, *_about_parts(data.judgements)),
    )
    bare = [part for part, rows in data.judgements.items() if not rows]
    if bare or not data.judgements:
        raise DataError(f"{name}: no query of {bare[0] if bare else 'any part'} has a relevant document. {told}")
    return data, told


def _about_parts(parts: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """What is odd about parts that stay as the files have them, which they do where there is one for training."""
    if "train" not in parts:
        return
    for part in parts:
        if part not in _KNOWN_PARTS:
            yield f"judgements of '{part}' are not used: the parts are train, dev (or val) and test"
    for one, other in combinations([part for part in _KNOWN_PARTS if part in parts], 2):
        shared = [query for query in parts[other] if query in parts[one]]
        if shared:
            yield f"{len(shared):,} queries of {other} are in {one} too ({report.named(shared)})"


def gather_examples(
    name: str, rows: Iterable[tuple[str, Sequence[str], Sequence[float]]]
) -> tuple[SearchData, SearchReport]:
    """A collection of training examples: for each row the query's text, those of its documents, and scores or none.

    The first document is the positive. Equal texts are one query or document. The documents are those of all examples.

    Raises:
        DataError: no example is left.
    """
    skipped = _Skipped()
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    examples = []
    for number, (query, texts, scores) in enumerate(rows):
        if not query.strip() or not texts or not texts[0].strip():
            skipped.add(report.NO_POSITIVE, str(number))
            continue
        kept = [place for place, text in enumerate(texts) if text.strip()]
        for _ in range(len(texts) - len(kept)):
            skipped.add(report.EMPTY_NEGATIVE, str(number))
        places = [documents.setdefault(texts[place], len(documents)) for place in kept]
        weighed = tuple(scores[place] for place in kept) if scores else ()
        examples.append(Example(queries.setdefault(query, len(queries)), places[0], tuple(places[1:]), weighed))
    told = SearchReport(len(documents), len(queries), {}, len(examples), skipped.told())
    if not examples:
        raise DataError(f"{name}: no example is left. {told}")
    return SearchData(name, _numbered("d", documents), _numbered("q", queries), {}, tuple(examples)), told


def _numbered(letter: str, texts: Iterable[str]) -> Texts:
    kept = tuple(texts)
    return Texts(tuple(f"{letter}{number}" for number in range(len(kept))), kept)


def _as_texts(rows: Mapping[str, str]) -> Texts:
    return Texts(tuple(rows), tuple(rows.values()))


def _texts(what: str, rows: Iterable[Row], reason: str, skipped: _Skipped) -> tuple[dict[str, str], set[str]]:
    found: dict[str, str] = {}
    empty = set()
    for name, text in rows:
        if not text.strip():
            skipped.add(reason, name)
            empty.add(name)
        elif name not in found:
            found[name] = text
        elif found[name] == text:
            skipped.add(report.COPY, name)
        else:
            raise DataError(f"{what} '{name}' comes twice, with different texts: {found[name]!r:.80} and {text!r:.80}.")
    return found, empty - set(found)


def _judged(
    what: str,
    rows: Iterable[Judged],
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    empty: tuple[set[str], set[str]],
    skipped: _Skipped,
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for query, document, grade in rows:
        if query not in queries:
            skipped.add(report.EMPTY_JUDGED if query in empty[1] else report.UNKNOWN_QUERY, query)
        elif document not in documents:
            skipped.add(report.EMPTY_JUDGED if document in empty[0] else report.UNKNOWN_DOCUMENT, document)
        elif found.setdefault(query, {}).setdefault(document, grade) != grade:
            raise DataError(
                f"{what}: document '{document}' is judged twice for query '{query}', as {found[query][document]} and {grade}."
            )
    return found


def _with_answers(rows: Mapping[str, dict[str, int]], skipped: _Skipped) -> dict[str, dict[str, int]]:
    kept = {}
    for query, judged in rows.items():
        if any(grade > 0 for grade in judged.values()):
            kept[query] = judged
        else:
            skipped.add(report.NOTHING_RELEVANT, query)
    return kept

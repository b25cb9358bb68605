"""What became of a collection when it was read: what was left out, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.data.search.collection import SearchData

_NAMED = 5

EMPTY_DOCUMENT = "documents without text"
EMPTY_QUERY = "queries without text"
COPY = "ids that come twice, with the same text"
NO_JUDGEMENT = "queries without judgements"
NOTHING_RELEVANT = "queries without a relevant document"
UNKNOWN_DOCUMENT = "judgements of unknown documents"
UNKNOWN_QUERY = "judgements of unknown queries"
EMPTY_JUDGED = "judgements of documents or queries without text"
NO_POSITIVE = "examples without a query or a positive"
EMPTY_NEGATIVE = "negatives without text"


@dataclass(frozen=True)
class SearchReport:
    """What a collection holds, and for each reason the ids of what was left out of it. notes: a sentence each."""

    documents: int
    queries: int
    judgements: Mapping[str, int]
    examples: int = 0
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report in words, a line each."""
        judged = ", ".join(f"{part} {count:,}" for part, count in self.judgements.items())
        examples = f", {self.examples:,} training examples" if self.examples else ""
        found = [f"{self.documents:,} documents, {self.queries:,} queries{examples}; judgements: {judged or 'none'}"]
        found += [f"left out: {len(ids):,} {reason} ({named(ids)})" for reason, ids in self.skipped.items()]
        return found + list(self.notes)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def named(ids: Sequence[str]) -> str:
    """The first few of some ids."""
    return ", ".join(ids[:_NAMED]) + ", …" * (len(ids) > _NAMED)


def told(data: SearchData) -> SearchReport:
    """The report of a collection that was made by hand, of which nothing was left out."""
    return SearchReport(
        documents=len(data.documents),
        queries=len(data.queries),
        judgements={part: sum(map(len, judged.values())) for part, judged in data.judgements.items()},
        examples=len(data.examples),
    )

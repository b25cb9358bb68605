"""What became of the examples when they were tokenised: kept, skipped and why, cut, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_NAMED = 5

EMPTY = "the completion is empty"
EMPTY_TEXT = "the text is empty"
NO_PROMPT = "there is no prompt"
NO_ANSWER = "the last message is not the assistant's"
TOO_LONG = "longer than max_length"
PROMPT_TOO_LONG = "the prompt alone fills max_length"


@dataclass(frozen=True)
class Report:
    """What became of the ``examples`` of a split.

    rows: sequences that came out; more than the examples that were kept where documents were split.
    skipped: for each reason, the indices of the examples that were left out. cut: indices of those whose completion was cut
    at the end. split: indices of documents that became several rows. tokens: of all rows, and learnt: those that are
    learnt to be predicted, None where that is not what is learnt. longest: tokens of the longest row. notes: other things
    to know, a sentence each.
    """

    examples: int
    rows: int
    tokens: int
    learnt: int | None
    longest: int
    max_length: int
    skipped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cut: tuple[int, ...] = ()
    split: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> int:
        """How many examples are left."""
        return self.examples - sum(map(len, self.skipped.values()))

    def lines(self) -> list[str]:
        """The report in words, a line each."""
        rows = f" as {self.rows:,} rows" if self.rows != self.kept else ""
        learnt = "" if self.learnt is None else f", {self.learnt:,} of them learnt"
        found = [
            f"{self.kept:,} of {self.examples:,} examples{rows}, {self.tokens:,} tokens{learnt}, {self.longest} in the longest "
            f"(max_length {self.max_length})"
        ]
        found += [f"skipped {_named(indices)}: {reason}" for reason, indices in self.skipped.items()]
        found += [f"cut at max_length: {_named(self.cut)}"] * bool(self.cut)
        found += [f"split at max_length: {_named(self.split)}"] * bool(self.split)
        return found + list(self.notes)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _named(indices: tuple[int, ...]) -> str:
    more = ", …" * (len(indices) > _NAMED)
    what = "example" if len(indices) == 1 else "examples"
    return f"{len(indices):,} {what} (index {', '.join(map(str, indices[:_NAMED]))}{more})"


def told_of(
    tokens: Sequence[Sequence[int]],
    examples: int,
    max_length: int,
    learnt: int | None,
    skipped: Mapping[str, Sequence[int]],
    cut: Sequence[int],
    split: Sequence[int],
    notes: Sequence[str],
) -> Report:
    """The report on rows of tokens of a split with ``examples`` examples."""
    return Report(
        examples=examples,
        rows=len(tokens),
        tokens=sum(map(len, tokens)),
        learnt=learnt,
        longest=max(map(len, tokens), default=0),
        max_length=max_length,
        skipped={reason: tuple(indices) for reason, indices in skipped.items()},
        cut=tuple(cut),
        split=tuple(split),
        notes=tuple(notes),
    )

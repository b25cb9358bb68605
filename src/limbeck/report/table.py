"""The table of methods as text: its columns, what is said below it, and how it is written for files and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limbeck.report.rows import MethodRow
from limbeck.report.statistics import FEW_PAIRS, Stat, half_width
from limbeck.runs import accuracy_words

if TYPE_CHECKING:
    from rich.table import Table

NOTE = (
    "± is the sample standard deviation (n-1) over seeds; – where there is one seed. Differences are paired: the same seeds "
    "of both methods, in percentage points of the test accuracy, of search nDCG@10 (validation where there is no test)."
)
_INTERVAL_NOTE = (
    "Intervals are 95 % confidence intervals of the mean difference by Student's t (none where all pairs differ by the same): "
    "better or worse where they exclude 0. Of many rows some do so by chance alone; p (Holm), of the paired t-test, is "
    "corrected for the number of rows with one baseline."
)
_SHARED_NOTE = (
    "Seconds are those that a student took alone; the data and the teacher's answers took 'shared s' besides, once for as "
    "many students as stand there."
)


@dataclass(frozen=True)
class Column:
    """A column: its title, what it says in a cell, and the number it is sorted by (None for text)."""

    title: str
    help: str
    text: Callable[[MethodRow], str]
    value: Callable[[MethodRow], float | None] | None = None


# What is said below the table


def note(rows: Sequence[MethodRow]) -> str:
    """:func:`warning`, and what ±, differences, intervals and seconds of these rows are."""
    parts = [warning(rows), NOTE]
    if any(row.difference and row.difference.low is not None for row in rows):
        parts.append(_INTERVAL_NOTE)
    if any(row.shared_seconds is not None for row in rows):
        parts.append(_SHARED_NOTE)
    return " ".join(part for part in parts if part)


def warning(rows: Sequence[MethodRow]) -> str:
    """What to beware of where there are few seeds; empty where each difference has at least ``FEW_PAIRS`` pairs."""
    contests = {(row.data, row.student) for row in rows if row.baseline}
    compared = [row for row in rows if (row.data, row.student) in contests and not (row.baseline or row.is_teacher)]
    counts = [row.difference.count for row in compared if row.difference is not None]
    said = []
    if len(counts) < len(compared):
        said.append(
            "Too few seeds: with fewer than two in common with the baseline there is no interval, and nothing can be said of "
            "a difference (–)."
        )
    few = min(counts, default=FEW_PAIRS)
    if few < FEW_PAIRS:
        said.append(
            f"Few seeds: with {few} pairs an interval is wide, {half_width(few):.1f} standard deviations to each side "
            f"({half_width(FEW_PAIRS):.1f} with {FEW_PAIRS})."
        )
    return " ".join(said)


# Cells


def percent(value: float) -> str:
    """A share as percent with two decimals, without the sign."""
    return f"{100 * value:.2f}"


def _shares(pick: Callable[[MethodRow], Stat | None], signed: bool = False) -> Callable[[MethodRow], str]:
    def text(row: MethodRow) -> str:
        stat = pick(row)
        if stat is None:
            return "baseline" if signed and row.baseline else "–"
        mean = f"{100 * stat.mean:+.2f}" if signed else percent(stat.mean)
        if stat.std is not None:
            return f"{mean} ± {percent(stat.std)}"
        return mean if row.is_teacher else f"{mean} ± –"

    return text


def _mean(pick: Callable[[MethodRow], Stat | None]) -> Callable[[MethodRow], float | None]:
    def value(row: MethodRow) -> float | None:
        stat = pick(row)
        return None if stat is None else stat.mean

    return value


def _interval(row: MethodRow) -> str:
    if row.difference is None or row.difference.low is None or row.difference.high is None:
        return "–"
    return f"{100 * row.difference.low:+.2f} to {100 * row.difference.high:+.2f}"


def _corrected_p(row: MethodRow) -> str:
    p = None if row.difference is None else row.difference.p_holm
    return "–" if p is None else "<0.001" if p < 0.0005 else f"{p:.3f}"


def _shared(row: MethodRow) -> str:
    return "–" if row.shared_seconds is None else f"{row.shared_seconds.mean:,.1f} by {row.shared_with}"


def _plain(stat: Stat) -> str:
    spread = "" if stat.std is None else f" ± {stat.std:.2f}"
    return f"{stat.mean:.2f}{spread}" if stat.mean < 1000 else f"{stat.mean:.3g}"


def _share_column(title: str, help_: str, pick: Callable[[MethodRow], Stat | None], signed: bool = False) -> Column:
    return Column(title, help_, _shares(pick, signed), _mean(pick))


_METHOD = Column("method", "preset or expression", lambda row: row.label)
_METHOD_ALONE = replace(_METHOD, text=lambda row: "teacher" if row.is_teacher else row.label)
_DATA = Column("data", "data set", lambda row: row.data)
_STUDENT = Column("network", "the student's network", lambda row: row.student)
_COUNT = Column(
    "n",
    "runs with different seeds",
    lambda row: str(len(row.seeds)) if row.seeds else "–",
    lambda row: float(len(row.seeds)),
)
_PAIRS = Column(
    "pairs",
    "seeds in common with the baseline",
    lambda row: "–" if row.difference is None else str(row.difference.count),
    lambda row: None if row.difference is None else float(row.difference.count),
)
_INTERVAL = Column(
    "95 % interval",
    "confidence interval of the difference in percentage points",
    _interval,
    lambda row: None if row.difference is None else row.difference.low,
)
_VERDICT = Column(
    "verdict",
    "whether the interval excludes 0",
    lambda row: "–" if row.difference is None else row.difference.verdict,
)
_HOLM = Column(
    "p (Holm)",
    "p-value of the paired t-test, corrected for the number of rows",
    _corrected_p,
    lambda row: None if row.difference is None else row.difference.p_holm,
)
_SHARED = Column(
    "shared s",
    "seconds of the data and the teacher's answers, and how many students shared them",
    _shared,
    _mean(lambda row: row.shared_seconds),
)
_MEMORY = Column(
    "memory MB",
    "memory that this student took in a shared pass, by its tensors",
    lambda row: "–" if row.memory_mb is None else f"{row.memory_mb.mean:,.0f}",
    _mean(lambda row: row.memory_mb),
)
_SECONDS = Column(
    "seconds",
    "mean training time of a run; where students shared a pass, the part that this one took alone",
    lambda row: "–" if row.seconds is None else f"{row.seconds.mean:,.1f}",
    _mean(lambda row: row.seconds),
)
_CALLS = Column(
    "calls",
    "images that the teacher was asked about in a run; students that shared a pass shared them",
    lambda row: "–" if row.teacher_calls is None else f"{row.teacher_calls:,}",
    lambda row: None if row.teacher_calls is None else float(row.teacher_calls),
)
_PERPLEXITY = Column(
    "perplexity",
    "exp of the mean negative log likelihood of the test's tokens",
    lambda row: "–" if row.perplexity is None else _plain(row.perplexity),
    _mean(lambda row: row.perplexity),
)
_TESTS = [
    ("test %", "", accuracy_words(searched=False, tokens=False)),
    ("test tokens %", " of the tokens", accuracy_words(searched=False, tokens=True)),
    (
        "test in batch %",
        " of the queries' documents among those of a batch",
        accuracy_words(searched=True, tokens=False),
    ),
]


def _test_column(title: str, of_what: str, words: str) -> Column:
    """The accuracy of the rows of which it is called so."""
    help_ = f"accuracy{of_what} on the test split, read once a run"
    return _share_column(title, help_, lambda row: row.test if row.accuracy_words == words else None)


_FIGURES = [
    _share_column("nDCG@10 %", "of what is found for the test queries", lambda row: row.ndcg),
    _share_column("MRR@10 %", "mean reciprocal rank of the first answer to a test query", lambda row: row.mrr),
    _share_column("R@100 %", "answers to a test query that are among the first 100 documents", lambda row: row.recall),
    _share_column("MAP %", "mean average precision of the first 1000 documents", lambda row: row.average_precision),
    _share_column("exact match %", "answers to test prompts that are right", lambda row: row.exact_match),
    _share_column("ROUGE-L %", "F1 with the wanted answers to test prompts", lambda row: row.rouge_l),
    *(_test_column(title, of_what, words) for title, of_what, words in _TESTS),
    _share_column(
        "vs baseline",
        "paired difference in percentage points, of nDCG@10 or exact match where there is one",
        lambda row: row.difference,
        signed=True,
    ),
    _PAIRS,
    _INTERVAL,
    _VERDICT,
    _HOLM,
    _share_column("kept %", "test accuracy, of search nDCG@10, as a share of the teacher's", lambda row: row.kept),
    _share_column("agrees %", "test images given the teacher's class", lambda row: row.agreement),
    _PERPLEXITY,
    _share_column(
        "val best %",
        "best validation accuracy of the run, of search in a batch",
        lambda row: row.validation_best,
    ),
    _share_column("val last %", "validation accuracy after the last epoch", lambda row: row.validation_last),
    _CALLS,
    _SECONDS,
    _SHARED,
    _MEMORY,
]
# Where the terminal is narrow, these go first, in this order.
_LEAST_TELLING = (
    *(
        "test in batch %",
        "MAP %",
        "val last %",
        "memory MB",
        "shared s",
        "seconds",
        "calls",
        "val best %",
        "agrees %",
        "p (Holm)",
        "kept %",
    ),
    *("verdict", "pairs", "95 % interval"),
)


def columns(rows: Sequence[MethodRow]) -> list[Column]:
    """The columns that say something for these rows; network, data and pairs only where they differ."""
    several_networks = len({row.student for row in rows if not row.is_teacher}) > 1
    chosen = [_METHOD_ALONE, _STUDENT] if several_networks else [_METHOD]
    chosen += [_DATA] if len({row.data for row in rows}) > 1 else []
    chosen += [_COUNT, *(column for column in _FIGURES if any(column.text(row) != "–" for row in rows))]
    if all(row.difference is None or row.difference.count == len(row.seeds) for row in rows):
        chosen = [column for column in chosen if column is not _PAIRS]
    return chosen


def markdown(rows: Sequence[MethodRow]) -> str:
    """The rows as a Markdown table, with a paragraph on what ± and the differences are."""
    chosen = columns(rows)
    lines = ["| " + " | ".join(column.title for column in chosen) + " |"]
    lines.append("|" + "|".join("---" if column.value is None else "---:" for column in chosen) + "|")
    for row in rows:
        lines.append("| " + " | ".join(column.text(row).replace("|", "\\|") for column in chosen) + " |")
    return "\n".join([*lines, "", note(rows), ""])


def rich_table(rows: Sequence[MethodRow], title: str | None = None, width: int | None = None) -> Table:
    """The rows for the terminal. Where they are wider than ``width``, the least telling columns are left out, and named."""
    from rich.table import Table
    from rich.text import Text

    everything = columns(rows)
    chosen = _fitting(everything, rows, width)
    left_out = [column.title for column in everything if column not in chosen]
    caption = f"Not shown for want of room: {', '.join(left_out)}. {note(rows)}" if left_out else note(rows)
    table = Table(title=title, caption=caption, caption_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(chosen):
        table.add_column(
            column.title, justify="left" if column.value is None else "right", no_wrap=width is not None and number > 0
        )
    for row in rows:
        # Text, so that brackets in an expression are not read as markup.
        table.add_row(*(Text(column.text(row)) for column in chosen), style="dim" if row.is_teacher else None)
    return table


def _fitting(chosen: list[Column], rows: Sequence[MethodRow], width: int | None) -> list[Column]:
    def needed(kept: list[Column]) -> int:
        return sum(max(len(column.title), *(len(column.text(row)) for row in rows)) + 2 for column in kept)

    kept = list(chosen)
    for title in _LEAST_TELLING:
        if width is None or not rows or needed(kept) <= width:
            break
        kept = [column for column in kept if column.title != title]
    return kept

"""One table of methods for the terminal, for files and for the page: means over seeds, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from limbeck.report.names import MethodKey, labels_of
from limbeck.report.statistics import FEW_PAIRS, Difference, Stat, half_width, holm, paired_difference
from limbeck.runs import Result

if TYPE_CHECKING:
    from rich.table import Table

NOTE = (
    "± is the sample standard deviation (n-1) over seeds; – where there is one seed. Differences are paired: the same seeds "
    "of both methods, in percentage points of the test accuracy (validation where there is no test)."
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
class MethodRow:
    """One method on one data set: its figures over seeds. Accuracies, agreement and ``kept`` are shares, not percent.

    A seed that was run twice counts once, as its mean.

    label: preset or expression, "student alone" or "teacher …". kept: test accuracy over the teacher's, run by run.
    scores: for each of ``seeds`` the accuracy that differences are made of: of the test, or else the best validation.
    difference: to the row that has ``baseline``, over the seeds both have, when there are at least two.
    parameters_ratio: the teacher's parameters over the student's. variant: settings that set it apart from a namesake.
    seconds: of training; where ``shared_with`` students shared a pass, of this one alone. shared_seconds: of the data and
        the teacher's answers, which all of those shared, and None where each run had its own. memory_mb: what this student
        took in such a pass. The three are None for a teacher. teacher_calls: images that the teacher was asked about in a run;
        None without a budget.
    """

    label: str
    objective: str
    data: str
    student: str
    teacher: str | None
    variant: str
    epochs: int | None
    seeds: tuple[int, ...]
    parameters: int
    parameters_ratio: float | None
    validation_best: Stat | None
    validation_last: Stat | None
    test: Stat | None
    agreement: Stat | None
    kept: Stat | None
    seconds: Stat | None
    scores: tuple[float | None, ...] = ()
    shared_seconds: Stat | None = None
    shared_with: int = 1
    memory_mb: Stat | None = None
    teacher_calls: int | None = None
    difference: Difference | None = None
    baseline: bool = False
    is_teacher: bool = False

    @property
    def key(self) -> MethodKey:
        """What makes it a method of its own."""
        return self.data, self.student, self.teacher, self.objective, self.epochs, self.variant

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields, and the difference's ``verdict`` with it."""
        values = asdict(self)
        if self.difference is not None:
            values["difference"]["verdict"] = self.difference.verdict
        return values


@dataclass(frozen=True)
class Column:
    """A column: its title, what it says in a cell, and the number it is sorted by (None for text)."""

    title: str
    help: str
    text: Callable[[MethodRow], str]
    value: Callable[[MethodRow], float | None] | None = None


def summarise(results: Sequence[Result], variants: Sequence[str] = ()) -> list[MethodRow]:
    """A row a method, over its seeds, grouped by data and student: teachers, then baselines, then by mean accuracy.

    The baseline of a student is the student alone, else the first method in ``results``.

    Args:
        results: of finished runs, in any order.
        variants: a text for each result that tells apart runs whose objective, networks, data and epochs are the same.
    """
    groups: dict[MethodKey, list[Result]] = {}
    for number, result in enumerate(results):
        groups.setdefault(method_key(result, variants[number] if variants else ""), []).append(result)
    labels = labels_of(groups)
    rows: list[MethodRow] = []
    for contest in dict.fromkeys((key[0], key[1]) for key in groups):
        members = {key: group for key, group in groups.items() if key[:2] == contest}
        rows += _contest(members, labels)
    return _teachers(results) + rows


def method_key(result: Result, variant: str = "") -> MethodKey:
    """Runs with the same key are one method; it is the ``key`` of that method's row."""
    return result.data, result.student, result.teacher, result.objective, result.epochs, variant


def _contest(groups: Mapping[MethodKey, list[Result]], labels: Mapping[MethodKey, str]) -> list[MethodRow]:
    alone = [key for key in groups if key[2] is None and key[3] == "ce()"]
    baseline = [*alone, *groups][0]
    rows = [_row(labels[key], key, group, groups[baseline], key == baseline) for key, group in groups.items()]
    if len(rows) == 1:  # nothing to compare it with
        rows = [replace(rows[0], baseline=False)]
    rows = _corrected(rows)
    return sorted(rows, key=lambda row: (not row.baseline, -_figure(row)))


def _corrected(rows: Sequence[MethodRow]) -> list[MethodRow]:
    tested = {
        place: row.difference.p for place, row in enumerate(rows) if row.difference and row.difference.p is not None
    }
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        replace(row, difference=replace(row.difference, p_holm=corrected[place]))
        if row.difference and place in corrected
        else row
        for place, row in enumerate(rows)
    ]


def _figure(row: MethodRow) -> float:
    stat = row.test or row.validation_best
    return -1.0 if stat is None else stat.mean


def _row(label: str, key: MethodKey, group: list[Result], baseline: list[Result], is_baseline: bool) -> MethodRow:
    first = group[0]

    def over_seeds(pick: Callable[[Result], float | None]) -> Stat | None:
        return Stat.of(_by_seed(group, pick).values())

    teacher_size = first.teacher_parameters
    seeds = tuple(sorted({result.seed for result in group}))
    scores = _by_seed(group, _accuracy)
    return MethodRow(
        label=label,
        objective=first.objective,
        data=first.data,
        student=first.student,
        teacher=first.teacher,
        variant=key[-1],
        epochs=first.epochs,
        seeds=seeds,
        parameters=first.student_parameters,
        parameters_ratio=teacher_size / first.student_parameters if teacher_size else None,
        validation_best=over_seeds(lambda result: result.validation_best),
        validation_last=over_seeds(lambda result: result.validation_last),
        test=over_seeds(lambda result: _test(result, "accuracy")),
        agreement=over_seeds(lambda result: _test(result, "agreement")),
        kept=over_seeds(kept),
        seconds=over_seeds(lambda result: result.seconds),
        scores=tuple(scores.get(seed) for seed in seeds),
        shared_seconds=over_seeds(lambda result: result.shared_seconds),
        shared_with=max(result.shared_with for result in group),
        memory_mb=over_seeds(lambda result: result.memory_mb),
        teacher_calls=max((result.teacher_calls for result in group if result.teacher_calls is not None), default=None),
        difference=None if is_baseline else _paired(group, baseline),
        baseline=is_baseline,
    )


def _test(result: Result, name: str) -> float | None:
    return None if result.test is None else result.test.get(name)


def kept(result: Result) -> float | None:
    """The student's test accuracy as a share of its teacher's."""
    own = _test(result, "accuracy")
    teacher = None if result.teacher_test is None else result.teacher_test.get("accuracy")
    return own / teacher if own is not None and teacher else None


def _paired(group: list[Result], baseline: list[Result]) -> Difference | None:
    ours, theirs = _by_seed(group, _accuracy), _by_seed(baseline, _accuracy)
    shared = sorted(ours.keys() & theirs.keys())
    return paired_difference([ours[seed] - theirs[seed] for seed in shared]) if len(shared) > 1 else None


def _accuracy(result: Result) -> float | None:
    return result.validation_best if result.test is None else result.test.get("accuracy")


def _by_seed(group: list[Result], pick: Callable[[Result], float | None]) -> dict[int, float]:
    # A seed that was run twice counts once, as its mean.
    found: dict[int, list[float]] = {}
    for result in group:
        value = pick(result)
        if value is not None:
            found.setdefault(result.seed, []).append(value)
    return {seed: math.fsum(values) / len(values) for seed, values in found.items()}


def _teachers(results: Sequence[Result]) -> list[MethodRow]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.teacher is not None and (result.teacher_test or result.teacher_validation is not None):
            groups.setdefault((result.data, result.teacher), []).append(result)
    rows = []
    for (data, teacher), group in groups.items():
        # Every run tells of its teacher again; teachers of one name with other weights have other figures.
        tests = {result.teacher_test["accuracy"] for result in group if result.teacher_test}
        checks = {result.teacher_validation for result in group}
        rows.append(
            MethodRow(
                label=f"teacher {teacher}",
                objective="",
                data=data,
                student=teacher,
                teacher=None,
                variant="",
                epochs=None,
                seeds=(),
                parameters=group[0].teacher_parameters or 0,
                parameters_ratio=None,
                validation_best=Stat.of(sorted(value for value in checks if value is not None)),
                validation_last=None,
                test=Stat.of(sorted(tests)),
                agreement=None,
                kept=None,
                seconds=None,
                is_teacher=True,
            )
        )
    return rows


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
_FIGURES = [
    _share_column("test %", "accuracy on the test split, read once a run", lambda row: row.test),
    _share_column("vs baseline", "paired difference in percentage points", lambda row: row.difference, signed=True),
    _PAIRS,
    _INTERVAL,
    _VERDICT,
    _HOLM,
    _share_column("kept %", "test accuracy as a share of the teacher's", lambda row: row.kept),
    _share_column("agrees %", "test images given the teacher's class", lambda row: row.agreement),
    _share_column("val best %", "best validation accuracy of the run", lambda row: row.validation_best),
    _share_column("val last %", "validation accuracy after the last epoch", lambda row: row.validation_last),
    _CALLS,
    _SECONDS,
    _SHARED,
    _MEMORY,
]
# Where the terminal is narrow, these go first, in this order.
_LEAST_TELLING = (
    *("val last %", "memory MB", "shared s", "seconds", "calls", "val best %", "agrees %", "p (Holm)", "kept %"),
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

"""What a hurried reader should know, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from limbeck.report.costs import Price, cost_words, price, price_of
from limbeck.report.table import MethodRow, warning

if TYPE_CHECKING:
    from limbeck.report.evaluation.record import Record


def headline(rows: Sequence[MethodRow], records: Sequence[Record] = ()) -> tuple[str, str]:
    """The sentence that stands at the top of the page, and those that say how sure it is.

    It is told from finished runs; from the first evaluation with an accuracy where there is none.
    """
    distilled = [row for row in rows if row.kept is not None]
    if distilled:
        best = max(distilled, key=lambda row: row.kept.mean if row.kept else 0.0)
        among = f"The best of {len(distilled)} methods here by test accuracy. " if len(distilled) > 1 else ""
        cost = price(best, records)
        return _kept_sentence(best, cost), " ".join(filter(None, (among + _sureness(best, rows), _timing(cost))))
    scored = [row for row in rows if not row.is_teacher and (row.test or row.validation_best)]
    if not scored:
        told = map(_of_record, records)
        return next((words for words in told if words), ("No finished run has an accuracy yet", ""))
    best = max(scored, key=lambda row: (row.test or row.validation_best).mean)  # type: ignore[union-attr]  # filtered above
    stat, split = (best.test, "test") if best.test else (best.validation_best, "validation")
    assert stat is not None
    return f"{best.label} reaches {100 * stat.mean:.1f} % {split} accuracy on {best.data}", _sureness(best, rows)


def _kept_sentence(row: MethodRow, cost: Price | None) -> str:
    assert row.kept is not None
    words = cost_words(cost, row.parameters_ratio)
    return f"{row.label} keeps {_kept_share(row.kept.mean)} % of the teacher's accuracy" + (
        f" at {words}" if words else ""
    )


def _kept_share(value: float) -> str:
    kept = 100 * value
    # 99.6 % is not the whole.
    return f"{kept:.1f}" if 99 <= kept < 100 else f"{kept:.0f}"


def _timing(cost: Price | None) -> str:
    if cost is None or cost.time is None:
        return ""
    return f"Time is that of a forward pass of {cost.batch} images on {cost.device}."


def _sureness(row: MethodRow, rows: Sequence[MethodRow]) -> str:
    runs = f"mean of {len(row.seeds)} seeds" if len(row.seeds) > 1 else "one seed, so without an error bar"
    stat = row.test or row.validation_best
    assert stat is not None
    spread = f" ± {100 * stat.std:.2f}" if stat.std is not None else ""
    split = "Test" if row.test else "Validation"
    text = f"{split} accuracy {100 * stat.mean:.2f}{spread} % with {row.student} on {row.data} ({runs})."
    base = next(
        (other for other in rows if other.baseline and (other.data, other.student) == (row.data, row.student)), None
    )
    if base is None or row.difference is None:
        return text
    difference = row.difference
    points = (
        f"{100 * difference.mean:+.2f} ± {100 * (difference.std or 0):.2f} points, paired over {difference.count} seeds"
    )
    if difference.low is not None and difference.high is not None:
        points += f", 95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}: {difference.verdict}"
    return f"{text} Against {base.label}: {points}. {warning([base, row])}".strip()


def _of_record(record: Record) -> tuple[str, str] | None:
    students = record.students
    if not students:
        return None
    who = max(students, key=lambda student: record.networks[student].accuracy)
    best, teacher = record.networks[who], record.networks.get(record.teacher or "")
    sure = (
        f"Accuracy {100 * best.accuracy:.2f} % on {best.count:,} images of {record.data}, {record.split} (one network, so "
        "without an error bar)."
    )
    if len(students) > 1:
        sure = f"The best of {len(students)} students here. {sure}"
    if teacher is None or not teacher.accuracy:
        return f"{who} reaches {100 * best.accuracy:.1f} % accuracy on {record.data}", sure
    cost = _price_in(record, who)
    ratio = teacher.parameters / best.parameters if best.parameters and teacher.parameters else None
    words = cost_words(cost, ratio)
    main = f"{who} keeps {_kept_share(best.accuracy / teacher.accuracy)} % of the teacher's accuracy"
    return main + (f" at {words}" if words else ""), " ".join(filter(None, (sure, _timing(cost))))


def _price_in(record: Record, student: str) -> Price | None:
    if record.cost is None:
        return None
    ours, theirs = record.cost.networks.get(student), record.cost.networks.get(record.teacher or "")
    return None if ours is None or theirs is None else price_of(ours, theirs, record.cost.device)

"""What a hurried reader should know, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from limbeck.report.costs import Price, cost_words, price, price_of
from limbeck.report.rows import MethodRow
from limbeck.report.statistics import LEVEL, Stat, paired_difference
from limbeck.report.table import warning

if TYPE_CHECKING:
    from limbeck.evaluate.record import Evaluation


def headline(rows: Sequence[MethodRow], evaluations: Sequence[Evaluation] = ()) -> tuple[str, str]:
    """The sentence that stands at the top of the page, and those that say how sure it is.

    It is told from finished runs; from the first evaluation with an accuracy where there is none.
    """
    winners = _winners(rows)
    if winners:
        best = max(winners, key=lambda row: row.kept.mean if row.kept else 0.0)
        cost = price(best, evaluations)
        others = "Other students and data sets are in the table." if len(winners) > 1 else ""
        sure = (_among_methods(best, rows), _sureness(best, rows), others, _timing(cost))
        return _kept_sentence(best, cost) + _beaten(best, rows), " ".join(filter(None, sure))
    scored = [(*found, row) for row in rows if not row.is_teacher and (found := _accuracy(row)) is not None]
    if not scored:
        told = map(_of_evaluation, evaluations)
        return next((words for words in told if words), ("No finished run has an accuracy yet", ""))
    stat, what, best = max(scored, key=lambda found: found[0].mean)
    return f"{best.label} reaches {100 * stat.mean:.1f} % {what} on {best.data}", _sureness(best, rows)


def _accuracy(row: MethodRow) -> tuple[Stat, str] | None:
    """What a row is judged by, in words too: the test's accuracy, of search its nDCG@10, or else the best on validation."""
    if row.ndcg is not None:
        return row.ndcg, "test nDCG@10"
    if row.test is not None:
        return row.test, f"test {row.accuracy_words}"
    return None if row.validation_best is None else (row.validation_best, f"validation {row.accuracy_words}")


def _winners(rows: Sequence[MethodRow]) -> list[MethodRow]:
    """Of each student on each data set the taught method that does best on the test; others are no match for it."""
    found: dict[tuple[str, str], MethodRow] = {}
    for row in rows:
        before = found.get((row.data, row.student))
        if row.kept is not None and (before is None or _tested(row) > _tested(before)):
            found[row.data, row.student] = row
    return list(found.values())


def _tested(row: MethodRow) -> float:
    stat = row.ndcg or row.test
    return -1.0 if stat is None else stat.mean


def _judged_by(row: MethodRow) -> str:
    return "nDCG@10" if row.ndcg is not None else row.accuracy_words


def _among_methods(best: MethodRow, rows: Sequence[MethodRow]) -> str:
    """That it has the highest mean of the taught methods, and whether that tells it apart from the next."""
    rivals = [row for row in rows if row is not best and row.kept is not None and _compete(row, best)]
    if not rivals:
        return ""
    text = f"The highest mean test {_judged_by(best)} of {len(rivals) + 1} methods with a teacher here"
    second = max(rivals, key=_tested)
    ours, theirs = (dict(zip(row.seeds, row.scores, strict=True)) for row in (best, second))
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    lead = paired_difference([one - other for one, other in pairs if one is not None and other is not None])
    if lead is not None and lead.verdict == "better":
        return f"{text}."
    by = f"{100 * (_tested(best) - _tested(second)):+.2f} points"
    return f"{text}, but not told apart from that of {second.label} ({by})."


def _compete(row: MethodRow, other: MethodRow) -> bool:
    return (row.data, row.student) == (other.data, other.student)


def _baseline(row: MethodRow, rows: Sequence[MethodRow]) -> MethodRow | None:
    return next((other for other in rows if other.baseline and other is not row and _compete(row, other)), None)


def _beaten(row: MethodRow, rows: Sequence[MethodRow]) -> str:
    """What a share of the teacher's accuracy does not show: that the student has as much without a teacher."""
    base = _baseline(row, rows)
    if base is None or _tested(base) < _tested(row):
        return ""
    return f", {'less than' if _tested(base) > _tested(row) else 'no more than'} {base.label}"


def _kept_sentence(row: MethodRow, cost: Price | None) -> str:
    assert row.kept is not None
    words = cost_words(cost, row.parameters_ratio)
    return f"{row.label} keeps {_kept_share(row.kept.mean)} % of the teacher's {_judged_by(row)}" + (
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
    found = _accuracy(row)
    assert found is not None
    stat, what = found
    spread = f" ± {100 * stat.std:.2f}" if stat.std is not None else ""
    text = f"{what[0].upper()}{what[1:]} {100 * stat.mean:.2f}{spread} % with {row.student} on {row.data} ({runs})."
    base = _baseline(row, rows)
    if base is None or row.difference is None:
        return text
    difference = row.difference
    points = (
        f"{100 * difference.mean:+.2f} ± {100 * (difference.std or 0):.2f} points, paired over {difference.count} seeds"
    )
    if difference.low is not None and difference.high is not None:
        points += f", 95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}: {difference.verdict}"
        if difference.verdict == "better" and difference.p_holm is not None and difference.p_holm > 1 - LEVEL:
            points += f", but p is {difference.p_holm:.2f} once corrected for the number of methods (Holm)"
    # Differences are of answers where there are some.
    of_what = ", in exact match" if row.exact_match is not None and row.ndcg is None else ""
    return f"{text} Against {base.label}{of_what}: {points}. {warning([base, row])}".strip()


def _of_evaluation(evaluation: Evaluation) -> tuple[str, str] | None:
    students = evaluation.students
    if not students:
        return None
    who = max(students, key=evaluation.quality)
    best, teacher = evaluation.networks[who], evaluation.networks.get(evaluation.teacher or "")
    name, reached = evaluation.quality_name, evaluation.quality(who)
    sure = (
        f"{name[0].upper()}{name[1:]} {_written(evaluation, reached, 2)} on {best.count:,} {evaluation.samples} of "
        f"{evaluation.data}, {evaluation.split} (one network, so without an error bar)."
    )
    if len(students) > 1:
        sure = f"The best of {len(students)} students here. {sure}"
    theirs = 0.0 if teacher is None else evaluation.quality(evaluation.teacher or "")
    if teacher is None or not theirs:
        return f"{who} reaches {_written(evaluation, reached, 1)} {name} on {evaluation.data}", sure
    cost = _price_in(evaluation, who)
    ratio = teacher.parameters / best.parameters if best.parameters and teacher.parameters else None
    words = cost_words(cost, ratio)
    main = f"{who} keeps {_kept_share(reached / theirs)} % of the teacher's {name}"
    return main + (f" at {words}" if words else ""), " ".join(filter(None, (sure, _timing(cost))))


def _written(evaluation: Evaluation, value: float, digits: int) -> str:
    return f"{value:.4f}" if evaluation.kind == "search" else f"{100 * value:.{digits}f} %"


def _price_in(evaluation: Evaluation, student: str) -> Price | None:
    if evaluation.cost is None:
        return None
    ours, theirs = evaluation.cost.networks.get(student), evaluation.cost.networks.get(evaluation.teacher or "")
    return None if ours is None or theirs is None else price_of(ours, theirs, evaluation.cost.device)

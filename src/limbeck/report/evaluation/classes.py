"""Which classes a student lost and gained against its teacher."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from limbeck.evaluate.classification import Classification
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._draw import sheet
from limbeck.report.evaluation._words import Cast, cast, in_order, percent, points
from limbeck.report.figures import SIZE
from limbeck.report.plates import Draw, Palette, Plate, clipped, quiet
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

_MOST = 10
_MOST_ROWS = 100
_UNFOLDED = 20
_CONFUSED = 5
_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class _Change:
    """A class's accuracy of the student less the teacher's, with a 95 % interval."""

    name: str
    count: int
    difference: float
    low: float
    high: float


def classes(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Losses and gains of each student as bars, and the accuracy of all classes in a table."""
    found = evaluation.classification
    if not found:
        return []
    shown = cast(evaluation, found, numbers)
    with_teacher = evaluation.teacher is not None and evaluation.teacher in found
    plates = (
        [_plate(evaluation, who, f"{prefix}-classes-{shown.numbers[who]}") for who in shown.students]
        if with_teacher
        else []
    )
    lead = ""
    if with_teacher and shown.students:
        lead = f"Each class's accuracy against the teacher's, on the same images.{shown.remark}"
    title = "Classes lost and gained" if plates else "Accuracy by class"
    return [Section(f"{prefix}-classes", title, tuple(plates), _table(evaluation) + _confused(evaluation, shown), lead)]


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share in [0, 1] of ``count`` images, by Wilson's score."""
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(student: float, teacher: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a difference of shares of ``count`` images each, from their Wilson intervals (Newcombe 1998).

    As for two sets of images: for the same ones in both, whose answers go together, it is rather too wide.
    """
    (low, high), (other_low, other_high) = wilson(student, count), wilson(teacher, count)
    difference = student - teacher
    below = math.hypot(student - low, other_high - teacher)
    above = math.hypot(high - student, teacher - other_low)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _changes(evaluation: Evaluation, student: str) -> list[_Change]:
    """Of all classes that have images, in the order of the labels."""
    assert evaluation.classification is not None
    assert evaluation.teacher is not None
    pairs = zip(
        evaluation.classification[student].classes, evaluation.classification[evaluation.teacher].classes, strict=True
    )
    return [
        _Change(mine.name, mine.count, mine.accuracy - its.accuracy, *newcombe(mine.accuracy, its.accuracy, mine.count))
        for mine, its in pairs
        if mine.accuracy is not None and its.accuracy is not None and mine.count
    ]


def _plate(evaluation: Evaluation, student: str, name: str) -> Plate:
    changes = _changes(evaluation, student)
    losses = sorted((c for c in changes if c.difference < 0), key=lambda c: c.difference)
    gains = sorted((c for c in changes if c.difference > 0), key=lambda c: -c.difference)
    same = len(changes) - len(losses) - len(gains)
    shown = gains[:_MOST] + losses[:_MOST][::-1]
    tally = f"{len(losses)} of {len(changes)} classes lose, {len(gains)} gain, {same} are as before"
    caption = f"{tally}. In brackets: the class's images. Thin line: 95 % interval, with few images a wide one."
    alternative = (
        f"Accuracy by class of {student} less the teacher's, in points: {tally}. "
        f"Largest losses: {_told(losses[:_MOST])}. Largest gains: {_told(gains[:_MOST])}."
    )
    return Plate(name, student, caption, alternative, _bars(shown or changes[:_MOST]))


def _told(changes: Sequence[_Change]) -> str:
    parts = [
        f"{c.name} {points(c.difference)} ({points(c.low)} to {points(c.high)}, {c.count:,} images)" for c in changes
    ]
    return "; ".join(parts) or "none"


def _bars(changes: Sequence[_Change]) -> Draw:
    """The gains over the losses."""

    def draw(palette: Palette) -> Figure:
        with sheet(palette, (SIZE[0], 0.7 + 0.21 * max(3, len(changes)))) as figure:
            axes = figure.subplots()
            for place, change in enumerate(changes):
                colour = palette.colour(0 if change.difference > 0 else 1)
                axes.barh(place, 100 * change.difference, height=0.7, color=colour, alpha=0.75)
                axes.hlines(place, 100 * change.low, 100 * change.high, color=palette.ink, linewidth=0.8)
            axes.axvline(0, color=palette.ink, linewidth=0.8)
            axes.set_yticks(range(len(changes)), [f"{clipped(c.name, 18)} ({c.count:,})" for c in changes])
            axes.set_ylim(len(changes) - 0.4, -0.6)
            axes.set_xlabel("accuracy less the teacher's, points")
            quiet(axes, palette)
            axes.grid(False, axis="y")
        return figure

    return draw


def _table(evaluation: Evaluation) -> str:
    found = evaluation.classification
    assert found is not None
    shown = in_order(evaluation, found)
    columns = [Column("class", "Its name", number=False), Column("images", "Images of the class")]
    columns += [Column(who, f"Accuracy of {who} on images of the class") for who in shown]
    first = found[shown[0]].classes
    order = sorted(range(len(first)), key=lambda place: _worst(evaluation, place))[:_MOST_ROWS]
    rows = [
        [
            Cell(first[place].name),
            Cell(f"{first[place].count:,}", first[place].count),
            *(figure(found[who].classes[place].accuracy, percent) for who in shown),
        ]
        for place in sorted(order)
    ]
    left = len(first) - len(rows)
    remark = f" The {_MOST_ROWS} that lose the most are shown; {left:,} others are left out." if left else ""
    balanced = "; ".join(f"{who} {percent(mean)}" for who in shown if (mean := found[who].balanced) is not None)
    words = f"Mean of the classes: {balanced or 'not known'}.{remark}"
    body = table("Accuracy by class", columns, rows) + note(words)
    return (
        body
        if len(rows) <= _UNFOLDED
        else f"<details><summary>Accuracy of {len(rows)} classes</summary>\n{body}</details>"
    )


def _confused(evaluation: Evaluation, shown: Cast) -> str:
    """A line a network: which classes it takes for which others, the most frequent first."""
    assert evaluation.classification is not None
    found = {who: _told_confused(evaluation.classification[who]) for who in shown.numbers}
    lines = "".join(f"<li><b>{html.escape(who)}</b>: {html.escape(text)}.</li>" for who, text in found.items() if text)
    return f'<p class="note">Most often confused:</p>\n<ul class="runs">{lines}</ul>' if lines else ""


def _told_confused(found: Classification) -> str:
    images = {each.name: each.count for each in found.classes}
    return "; ".join(
        f"{each.label} taken for {each.prediction} ({each.count:,} of {images.get(each.label, each.count):,})"
        for each in found.confused[:_CONFUSED]
    )


def _worst(evaluation: Evaluation, place: int) -> float:
    """By how much the students lose at most in a class; without a teacher their accuracy itself."""
    assert evaluation.classification is not None
    accuracy = {who: found.classes[place].accuracy for who, found in evaluation.classification.items()}
    teacher = accuracy.get(evaluation.teacher or "") or 0.0
    return min(
        (value - teacher for who, value in accuracy.items() if value is not None and who != evaluation.teacher),
        default=0.0,
    )

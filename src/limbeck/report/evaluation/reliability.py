"""Whether the networks are as sure as they are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from limbeck.evaluate.calibration import Calibration, Scaled
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._draw import Line, sheet, trace
from limbeck.report.evaluation._words import cast, in_order, percent, teachers, three
from limbeck.report.plates import Draw, Palette, Plate, quiet
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, table

_SIZE = (4.4, 4.2)
_COLUMNS = (
    Column("network", "Its short name", number=False),
    Column("ECE", "Expected calibration error over bins of equal width; 0 is the best"),
    Column("MCE", "The largest gap between confidence and accuracy of a bin"),
    Column("NLL", "Mean negative log likelihood, in nats"),
    Column("Brier", "Mean squared distance of the probabilities from the truth, from 0 (the best) to 2"),
    Column("temperature", "By which the logits are divided; above 1 the network was too sure"),
    Column("ECE scaled", "Expected calibration error after temperature scaling"),
    Column("NLL scaled", "Negative log likelihood after temperature scaling"),
    Column("Brier scaled", "Brier score after temperature scaling"),
)


def reliability(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """A reliability diagram a network, and the figures of all in a table."""
    found = evaluation.calibration
    if not found:
        return []
    shown = cast(evaluation, found, numbers)
    plates = tuple(_plate(who, found[who], f"{prefix}-reliability-{n}") for who, n in shown.numbers.items())
    rows = [_row(who, found[who]) for who in in_order(evaluation, found)]
    lead = (
        "Points on the dashed diagonal are as right as they are sure; below it a network is too sure. The bars show how many "
        f"images have that confidence.{shown.remark}"
    )
    body = table("Calibration", _COLUMNS, rows, teachers(evaluation))
    return [Section(f"{prefix}-reliability", "Calibration", plates, body, lead)]


def _plate(who: str, found: Scaled, name: str) -> Plate:
    caption = f"ECE {percent(found.raw.ece)}"
    legend = [("as it is", 0)]
    alternative = f"Accuracy against confidence, {who}. As it is: {_told(found.raw)}."
    if found.scaled is not None:
        caption += f"; {percent(found.scaled.ece)} after temperature scaling"
        after = "after scaling" if found.temperature is None else f"logits divided by {found.temperature:.2f}"
        legend.append((after, 1))
        alternative += f" {after[0].upper()}{after[1:]}: {_told(found.scaled)}."
    if found.temperature is not None and found.fitted_on is not None:
        caption += f", fitted on {found.fitted_on:,} images of the validation split"
    return Plate(name, who, caption + ".", alternative, _diagram(found), legend)


def _told(found: Calibration) -> str:
    bins = [
        f"{percent(part.accuracy, 0)} at {percent(part.confidence, 0)} sure ({part.count:,})"
        for part in found.reliability
        if part.accuracy is not None and part.confidence is not None
    ]
    return f"ECE {percent(found.ece)}; {', '.join(bins)}"


def _diagram(found: Scaled) -> Draw:
    both = [found.raw] if found.scaled is None else [found.raw, found.scaled]

    def draw(palette: Palette) -> Figure:
        with sheet(palette, _SIZE) as figure:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
            upper.plot([0, 1], [0, 1], color=palette.ink, linewidth=0.8, dashes=(4, 3), alpha=0.7)
            for number, each in enumerate(both):
                trace(upper, _line(each, number), palette)
                _shares(lower, each, number, palette)
            upper.set_ylabel("accuracy")
            upper.set_ylim(-0.03, 1.03)
            upper.set_xlim(-0.03, 1.03)
            lower.set_ylabel("% of images")
            lower.set_xlabel("confidence")
            quiet(upper, palette)
            quiet(lower, palette)
        return figure

    return draw


def _line(found: Calibration, number: int) -> Line:
    known = [
        (part.confidence, part.accuracy)
        for part in found.reliability
        if part.confidence is not None and part.accuracy is not None
    ]
    return Line("", [sure for sure, _ in known], [right for _, right in known], number)


def _shares(axes: Any, found: Calibration, number: int, palette: Palette) -> None:
    total = sum(part.count for part in found.reliability) or 1
    edges = [found.reliability[0].low, *(part.high for part in found.reliability)] if found.reliability else [0.0, 1.0]
    shares = [100 * part.count / total for part in found.reliability] or [0.0]
    look = {"color": palette.colour(number)}
    if number == 0:
        axes.stairs(shares, edges, fill=True, alpha=0.35, linewidth=0, **look)
    else:
        axes.stairs(shares, edges, linewidth=1.2, **look)


def _row(who: str, found: Scaled) -> list[Cell]:
    after = found.scaled
    return [
        Cell(who),
        figure(found.raw.ece, percent),
        figure(found.raw.mce, percent),
        figure(found.raw.nll, three),
        figure(found.raw.brier, three),
        figure(found.temperature, lambda value: f"{value:.2f}"),
        figure(None if after is None else after.ece, percent),
        figure(None if after is None else after.nll, three),
        figure(None if after is None else after.brier, three),
    ]

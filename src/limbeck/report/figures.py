"""Plots of runs: lines over epochs, dots by method, points over cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from limbeck.report.plates import Palette, clipped, dashes, marker, quiet, style

SIZE = (4.4, 2.9)
"""Inches of a figure that stays readable at the width of a phone."""
_BACK = 0.28  # how strongly what stands back is drawn
_COLUMNS, _PANEL = 5, (2.2, 1.75)


@dataclass(frozen=True)
class Series:
    """A line over epochs or costs: its mean, and a band from low to high around it. number: picks colour and dashes."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    number: int = 0


@dataclass(frozen=True)
class Dots:
    """One method's runs as dots, with their mean. number: picks the colour."""

    label: str
    values: Sequence[float]
    number: int = 0


@dataclass(frozen=True)
class Mark:
    """A point that is named where it stands, as a teacher."""

    label: str
    x: float
    y: float


def curves(palette: Palette, series: Sequence[Series], y_label: str) -> Figure:
    """Lines over epochs with bands from lowest to highest."""
    with rc_context(style(palette)):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for line in series:
            _line(axes, line, palette.colour(line.number), dashes(line.number))
        axes.set_xlim(left=0)  # a run that has just begun has one point
        axes.set_xlabel("epoch")
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        quiet(axes, palette)
        return figure


def panels(
    palette: Palette,
    series: Sequence[Series],
    titles: Sequence[str],
    reference: Series | None,
    y_label: str,
    bottom: float,
) -> Figure:
    """A panel a line, in which it and the dashed ``reference`` are drawn over all the others in grey.

    All axes are the same, and begin at ``bottom``.
    """
    rows, columns = ceil(len(series) / _COLUMNS), min(_COLUMNS, len(series))
    with rc_context(style(palette)):
        figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(series):
                axes.set_visible(False)
                # The panel above has no other below it that shows the epochs.
                grid.flat[place - columns].xaxis.set_tick_params(labelbottom=True)
                continue
            for other in series:
                axes.plot(other.x, other.mean, color=palette.ink, alpha=_BACK, linewidth=0.8, marker=_dot(other))
            if reference is not None and reference is not series[place]:
                _line(axes, reference, palette.colour(1), dashes(1), band=False)
            _line(axes, series[place], palette.colour(0), dashes(0))
            axes.set_title(clipped(titles[place], 30), fontsize=9, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            quiet(axes, palette)
        grid.flat[0].set_ylim(bottom=bottom)
        grid.flat[0].set_xlim(left=0)
        figure.supxlabel("epoch", fontsize=9.5)
        figure.supylabel(y_label, fontsize=9.5)
        return figure


def _line(axes: Any, line: Series, colour: str, dash: tuple[float, ...], band: bool = True) -> None:
    if band:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    (drawn,) = axes.plot(line.x, line.mean, color=colour, linewidth=1.6, marker=_dot(line))
    if dash:
        drawn.set_dashes(dash)


def _dot(line: Series) -> str:
    return "." if len(line.x) < 3 else ""


def dots(palette: Palette, methods: Sequence[Dots], x_label: str, mark: tuple[str, float] | None) -> Figure:
    """A row of dots a method, a bar at its mean, and a dashed line at ``mark``, the teacher."""
    with rc_context(style(palette)):
        figure = Figure(figsize=(SIZE[0], 0.7 + 0.42 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            colour = palette.colour(method.number)
            mean = sum(method.values) / len(method.values)
            axes.plot([mean, mean], [place - 0.22, place + 0.22], color=colour, linewidth=2)
            places = [place] * len(method.values)
            axes.scatter(method.values, places, s=22, color=colour, alpha=0.75, linewidths=0)
        if mark is not None:
            axes.axvline(mark[1], color=palette.ink, linewidth=1, dashes=(4, 3))
            above = (mark[1], -0.62)
            axes.annotate(mark[0], above, xytext=(-4, 0), textcoords="offset points", ha="right", va="center")
        axes.set_yticks(range(len(methods)), [clipped(method.label) for method in methods])
        axes.set_ylim(len(methods) - 0.4, -1 if mark is not None else -0.6)
        axes.set_xlabel(x_label)
        axes.margins(x=0.06)
        quiet(axes, palette)
        return figure


def against(
    palette: Palette,
    series: Sequence[Series],
    others: Sequence[Series],
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
) -> Figure:
    """Points over what they cost, with bars from low to high; those of one line are joined.

    ``others`` are drawn in grey below ``series``; ``marks`` are named where they stand.
    """
    with rc_context(style(palette)):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for line in others:
            axes.plot(line.x, line.mean, color=palette.ink, alpha=_BACK, linewidth=0.8, marker="o", markersize=4)
        for line in series:
            _points(axes, line, palette.colour(line.number))
        sizes = [x for line in (*series, *others) for x in line.x] + [mark.x for mark in marks]
        for mark in marks:
            axes.plot([mark.x], [mark.y], color=palette.ink, marker="*", markersize=9, linestyle="")
            # On the side where there is room.
            side, align = (-7, "right") if mark.x**2 > min(sizes) * max(sizes) else (7, "left")
            words = clipped(mark.label, 22)
            axes.annotate(words, (mark.x, mark.y), (side, 0), textcoords="offset points", ha=align, va="center")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _over_sizes(axes, sizes)
        axes.margins(0.08)
        quiet(axes, palette)
        return figure


def _points(axes: Any, line: Series, colour: str) -> None:
    below = [mean - low for mean, low in zip(line.mean, line.low, strict=True)]
    above = [high - mean for mean, high in zip(line.mean, line.high, strict=True)]
    drawn = axes.errorbar(
        line.x,
        line.mean,
        (below, above),
        color=colour,
        marker=marker(line.number),
        markersize=5.5,
        elinewidth=1,
        capsize=2,
        linewidth=1.4,
    )
    if dash := dashes(line.number):
        drawn.lines[0].set_dashes(dash)


def _over_sizes(axes: Any, sizes: Sequence[float]) -> None:
    if max(sizes) > 4 * min(sizes):
        axes.set_xscale("log")
        spread = max(sizes) / min(sizes)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 300 else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))

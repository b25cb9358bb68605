"""The kinds of figure that several sections of an evaluation draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from limbeck.report.figures import SIZE
from limbeck.report.plates import Draw, Palette, clipped, dashes, marker, quiet, style


@dataclass(frozen=True)
class Line:
    """A network's line. number: picks colour, dashes and marker."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    number: int


@dataclass(frozen=True)
class Dots:
    """A network's value in each row of a dot plot, None where it has none. number: picks colour and marker.

    low, high: the ends of each value's interval, or empty.
    """

    values: Sequence[float | None]
    number: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@contextmanager
def sheet(palette: Palette, size: tuple[float, float] = SIZE) -> Iterator[Figure]:
    """An empty figure, and a block in which what is added to it has the palette's colours."""
    with rc_context(style(palette)):
        yield Figure(figsize=size, layout="constrained")


def line_figure(lines: Sequence[Line], x_label: str, y_label: str) -> Draw:
    """Lines with a marker at each point, from 0 up; whole numbers on the x axis."""

    def draw(palette: Palette) -> Figure:
        with sheet(palette) as figure:
            axes = figure.subplots()
            for line in lines:
                trace(axes, line, palette)
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            quiet(axes, palette)
        return figure

    return draw


def trace(axes: Any, line: Line, palette: Palette) -> None:
    """A line in the colour, dashes and markers of its number."""
    look = {"color": palette.colour(line.number), "marker": marker(line.number)}
    (drawn,) = axes.plot(line.x, line.y, linewidth=1.6, markersize=4, markeredgewidth=0, **look)
    if dash := dashes(line.number):
        drawn.set_dashes(dash)


def dot_figure(rows: Sequence[str], networks: Sequence[Dots], x_label: str, *, logarithmic: bool = False) -> Draw:
    """A row for each name with a marker for each network, and a bar over its interval."""

    def draw(palette: Palette) -> Figure:
        with sheet(palette, (SIZE[0], 0.7 + 0.28 * len(rows))) as figure:
            axes = figure.subplots()
            for network in networks:
                _dots(axes, network, palette)
            axes.set_yticks(range(len(rows)), [clipped(row) for row in rows])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_xlabel(x_label)
            axes.margins(x=0.06)
            if logarithmic:
                known = [value for network in networks for value in network.values if value is not None]
                over_decades(axes, known, StrMethodFormatter("{x:g}"))
            quiet(axes, palette)
        return figure

    return draw


def over_decades(axes: Any, values: Sequence[float], formatter: Formatter) -> None:
    """A logarithmic x axis with few numbers on it."""
    axes.set_xscale("log")
    spread = max(values) / min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 100 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(formatter)
    # One cost alone would leave an axis without a number.
    if spread < 4:
        axes.set_xlim(min(values) / 3, max(values) * 3)


def _dots(axes: Any, network: Dots, palette: Palette) -> None:
    colour = palette.colour(network.number)
    known = [(place, value) for place, value in enumerate(network.values) if value is not None]
    places, values = [place for place, _ in known], [value for _, value in known]
    if network.low:
        axes.hlines(places, network.low, network.high, color=colour, linewidth=3.5, alpha=0.4)
    axes.scatter(values, places, s=28, color=colour, marker=marker(network.number), linewidths=0, alpha=0.85)

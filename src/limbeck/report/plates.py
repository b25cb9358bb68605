"""A figure of the page and of a paper: what it shows in words, and how it is drawn in either's colours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from matplotlib import rc_context
from matplotlib.figure import Figure

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
"""Lines differ in these too, since not everybody tells colours apart; in points on and off."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Points differ in these too, as matplotlib calls them."""


@dataclass(frozen=True)
class Palette:
    """Colours to draw in: of text, of the grid, and of what is compared, by number."""

    ink: str
    grid: str
    series: tuple[str, ...]

    def colour(self, number: int) -> str:
        """The colour of the ``number``-th thing that is compared; they come round again."""
        return self.series[number % len(self.series)]


Draw = Callable[[Palette], Figure]


@dataclass(frozen=True)
class Plate:
    """One figure.

    name: unique on a page; the figure's file is called so. title, caption: shown beside it. alternative: what it shows, in
    words and numbers, for who does not see it. draw: makes it anew in the colours it is given.
    legend: the names of lines, with the number of each one's colour and dashes; with ``marked`` those of points, with the
    number of each one's colour and marker. wide: takes the page's whole width.
    """

    name: str
    title: str
    caption: str
    alternative: str
    draw: Draw
    legend: Sequence[tuple[str, int]] = ()
    wide: bool = False
    marked: bool = False


def style(palette: Palette) -> dict[Any, Any]:
    """Settings of matplotlib (for ``rc_context``) under which a figure is drawn in a palette's colours."""
    return {
        "font.size": 9.5,
        "font.family": "sans-serif",
        "axes.edgecolor": palette.grid,
        "axes.labelcolor": palette.ink,
        "text.color": palette.ink,
        "xtick.color": palette.grid,
        "ytick.color": palette.grid,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "grid.color": palette.grid,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
    }


def add_colour_bar(figure: Figure, axes: Any, image: Any, label: str, palette: Palette) -> None:
    """Beside a map of colours what its colours mean; frames are left out, since a map has its own edge."""
    bar = figure.colorbar(image, ax=axes, label=label, fraction=0.05)
    bar.ax.collections[0].set_rasterized(True)
    bar.ax.spines["outline"].set_visible(False)
    axes.spines[:].set_visible(False)
    for each in (axes, bar.ax):
        each.patch.set_visible(False)
        each.tick_params(color=palette.grid, labelcolor=palette.ink, labelsize=9)


def save(figure: Figure, target: Path | TextIO, palette: Palette, kind: str, salt: str, **options: Any) -> None:
    """Write a figure as "svg" or "pdf", in which text stays text. One ``salt`` makes the same bytes of the same figure.

    Letters that matplotlib's font lacks are whole in an SVG, which the reader's own fonts draw, and boxes in a PDF: that is no
    reason for a warning a letter.
    """
    undated: dict[str, Any] = {"Date": None} if kind == "svg" else {"CreationDate": None}
    with (
        rc_context({**style(palette), "svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": salt}),
        warnings.catch_warnings(),
    ):
        for said in (r"Glyph \d+ .* missing from", "Matplotlib currently does not support .* natively"):
            warnings.filterwarnings("ignore", said, UserWarning)
        figure.savefig(target, format=kind, metadata=undated, **options)


def dashes(number: int) -> tuple[float, ...]:
    """The dashes of the ``number``-th line, () for none; they come round again, out of step with the colours."""
    return DASHES[number % len(DASHES)]


def marker(number: int) -> str:
    """The marker of the ``number``-th kind of point; they come round again, out of step with the colours."""
    return MARKERS[marker_place(number)]


def marker_place(number: int) -> int:
    """The place among ``MARKERS`` of the marker of the ``number``-th kind of point."""
    return (number + number // len(MARKERS)) % len(MARKERS)


def clipped(text: str, length: int = 26) -> str:
    """A name as it is drawn: on one line, cut where it is longer, and with no mathematics between dollar signs."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return (line if len(line) <= length else line[: length - 1] + "…").replace("$", r"\$")


def quiet(axes: Any, palette: Palette) -> None:
    """A grid, and no frame on the sides without an axis; the page's paper shows through."""
    # Named here too, since ticks that are made when the figure is saved know nothing of the style it was drawn in.
    axes.grid(True, color=palette.grid, linewidth=0.6)
    axes.tick_params(color=palette.grid, labelcolor=palette.ink, labelsize=9.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.patch.set_visible(False)

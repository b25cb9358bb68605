"""Plots as inline SVG whose colours and fonts are those of the page around it, in light and dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

# Stand-ins that matplotlib writes into the SVG, and that become the page's own colours afterwards.
_INK, _GRID = "#010101", "#020202"
COLOURS = 6
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
_SIZE = (4.4, 2.9)


@dataclass(frozen=True)
class Series:
    """A line over epochs or sizes: its mean, and a band from low to high around it. number: picks colour and dashes."""

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


def curves(name: str, alternative: str, series: Sequence[Series], y_label: str, sizes: str | None = None) -> str:
    """Lines with bands from lowest to highest. ``name`` is unique on the page; ``alternative`` is its text in words.

    The x axis counts epochs; or, where ``sizes`` is given, it is called so, and each point is marked.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for line in series:
            colour, dash = _colour(line.number), _dash(line.number)
            marked = sizes is not None or len(line.x) < 3
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
            (drawn,) = axes.plot(line.x, line.mean, color=colour, linewidth=1.6, marker="." if marked else "")
            if dash:
                drawn.set_dashes(dash)
        axes.set_xlabel(sizes or "epoch")
        axes.set_ylabel(y_label)
        if sizes is None:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        else:
            _over_sizes(axes, [size for line in series for size in line.x])
        _quiet(axes)
        return _inline(figure, name, alternative)


def _over_sizes(axes: Any, sizes: Sequence[float]) -> None:
    if max(sizes) > 4 * min(sizes):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def dots(name: str, alternative: str, methods: Sequence[Dots], x_label: str, mark: tuple[str, float] | None) -> str:
    """A row of dots a method, a bar at its mean, and a dashed line at ``mark``, the teacher."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(_SIZE[0], 0.7 + 0.42 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            mean = sum(method.values) / len(method.values)
            axes.plot([mean, mean], [place - 0.22, place + 0.22], color=_colour(method.number), linewidth=2)
            axes.scatter(
                method.values,
                [place] * len(method.values),
                s=22,
                color=_colour(method.number),
                alpha=0.75,
                linewidths=0,
            )
        if mark is not None:
            axes.axvline(mark[1], color=_INK, linewidth=1, dashes=(4, 3))
            axes.annotate(
                mark[0], (mark[1], -0.62), xytext=(-4, 0), textcoords="offset points", ha="right", va="center"
            )
        axes.set_yticks(range(len(methods)), [_clipped(method.label) for method in methods])
        axes.set_ylim(len(methods) - 0.4, -1 if mark is not None else -0.6)
        axes.set_xlabel(x_label)
        axes.margins(x=0.06)
        _quiet(axes)
        return _inline(figure, name, alternative)


def legend(series: Sequence[Series]) -> str:
    """An HTML list that shows each line's colour and dashes beside its name."""
    items = []
    for line in series:
        parts = " ".join(f"{1.6 * part:g}" for part in _dash(line.number))
        dash = f' stroke-dasharray="{parts}"' if parts else ""
        drawn = f'<line x1="1" x2="27" y1="4" y2="4" style="stroke:var(--s{line.number % COLOURS})"{dash}></line>'
        swatch = f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">{drawn}</svg>'
        items.append(f"<li>{swatch}{html.escape(line.label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def _colour(number: int) -> str:
    return f"#0300{number % COLOURS:02x}"


def _dash(number: int) -> tuple[float, ...]:
    return _DASHES[number % len(_DASHES)]


def _clipped(text: str, length: int = 26) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _quiet(axes: Any) -> None:
    axes.grid(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.patch.set_visible(False)


def _inline(figure: Figure, name: str, alternative: str) -> str:
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name}):  # the same page for the same runs
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    # The style element would hold for the whole page, and the metadata name addresses.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    title = html.escape(alternative)
    head = f'<svg role="img" aria-label="{title}" {box[0]} preserveAspectRatio="xMidYMid meet"><title>{title}</title>'
    return head + _page_colours(_own_ids(body, name))


def _own_ids(body: str, name: str) -> str:
    """Ids that are used get the figure's name in front, since a page may hold each once; the others go."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', body)


def _page_colours(body: str) -> str:
    body = body.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
    body = re.sub(r"#0300([0-9a-f]{2})", lambda found: f"var(--s{int(found[1], 16)})", body)
    # Versions of matplotlib write the family by itself or after the size.
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", body)
    return re.sub(r'<text style="(?![^"]*fill:)', '<text style="fill: currentColor; ', body)

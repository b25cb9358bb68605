"""Maps of the embeddings of teacher and students, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from limbeck.evaluate.embedding_map import EmbeddingMap
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._draw import sheet
from limbeck.report.evaluation._words import cast, listed, percent
from limbeck.report.figures import SIZE
from limbeck.report.plates import MARKERS, Draw, Palette, Plate, clipped
from limbeck.report.sections import Section

_MOST_CLASSES = 12
_MOST_POINTS = 1200  # in all panels, each about 100 bytes of the page
_WIDTH = 9.0  # inches, of the page's whole width
_HIGHEST = 3.6
_COLUMNS = 3
_ROWS = 256
_LEAD = (
    "t-SNE puts images near each other that are neighbours in a network's embedding. It shows which classes mix; "
    "the size of a cluster, the distance between two, and up, down, left and right mean nothing, and other settings "
    "make another map. Trustworthiness (1 is the best) says how many neighbours on the map are neighbours in the embedding."
)


@dataclass(frozen=True)
class _Panel:
    who: str
    points: np.ndarray  # (N, 2)


def embedding(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """One wide figure with a map a network."""
    found = evaluation.embedding_map
    if found is None or not found.networks or not found.labels:
        return []
    shown = cast(evaluation, found.networks, numbers)
    if not shown.numbers:
        return []
    labels = np.asarray(found.labels)
    chosen = _chosen(labels, len(shown.numbers))
    panels = [_Panel(who, np.asarray(found.networks[who], dtype=float)[chosen]) for who in shown.numbers]
    told = "; ".join(f"{who}: {_told(found, who, labels)}" for who in shown.numbers)
    settings = f", perplexity {found.perplexity:g}" if found.perplexity is not None else ""
    names = [found.classes[label] for label in sorted(set(labels[chosen].tolist()))]
    part = f" Drawn are {len(chosen):,} of {len(labels):,} points." if len(chosen) < len(labels) else ""
    caption = f"{found.method}{settings}.{part} By network: {told}.{shown.remark}"
    maps = f"Maps of the embeddings of {listed(list(shown.numbers))}"
    alternative = f"{maps}, {found.method}{settings}: {told}. Classes: {', '.join(names)}."
    plate = Plate(
        f"{prefix}-map",
        "Images of each class",
        caption,
        alternative,
        _maps(panels, labels[chosen], found.classes),
        wide=len(panels) > 1,
    )
    return [Section(f"{prefix}-embedding", "Embeddings by t-SNE", (plate,), lead=_LEAD)]


def _told(found: EmbeddingMap, who: str, labels: np.ndarray) -> str:
    trust = found.trustworthiness.get(who)
    parts = [f"trustworthiness {trust:.3f}"] if trust is not None else []
    if len(labels) > 1:
        own = _own_neighbour(np.asarray(found.networks[who], dtype=float), labels)
        parts.append(f"the nearest point is of the same class for {percent(own)}")
    return ", ".join(parts) or "one image"


def _own_neighbour(points: np.ndarray, labels: np.ndarray) -> float:
    """Share of points whose nearest other point has their label."""
    own = 0
    for rows in np.array_split(np.arange(len(points)), math.ceil(len(points) / _ROWS)):
        distances = np.square(points[rows, None] - points).sum(axis=-1)
        distances[np.arange(len(rows)), rows] = np.inf
        own += int((labels[distances.argmin(axis=1)] == labels[rows]).sum())
    return own / len(points)


def _chosen(labels: np.ndarray, panels: int) -> np.ndarray:
    """Places of the points that are drawn: all of the first classes, or as many of each as there is room for."""
    kinds = np.unique(labels)[:_MOST_CLASSES]
    among = np.flatnonzero(labels <= kinds[-1])
    if len(among) * panels <= _MOST_POINTS:
        return among
    each = max(1, _MOST_POINTS // (panels * len(kinds)))
    return np.sort(np.concatenate([np.flatnonzero(labels == kind)[:each] for kind in kinds]))


def _maps(panels: Sequence[_Panel], labels: np.ndarray, names: Sequence[str]) -> Draw:
    def draw(palette: Palette) -> Figure:
        kinds = np.unique(labels).tolist()
        columns = min(_COLUMNS, len(panels))
        rows = math.ceil(len(panels) / columns)
        texts = [clipped(names[kind], 16) for kind in kinds]
        width = _WIDTH if len(panels) > 1 else SIZE[0]
        # Letters of 9.5 points are about 6 wide, a marker and the space around it 30.
        per_row = max(1, min(len(kinds), int(72 * width / (6 * max(map(len, texts)) + 30))))
        height = (min(width / columns, _HIGHEST) + 0.25) * rows + 0.22 * math.ceil(len(kinds) / per_row) + 0.1
        with sheet(palette, (width, height)) as figure:
            grid = figure.subplots(rows, columns, squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, panel in zip(grid.flat, panels, strict=False):
                _scatter(axes, panel, labels, kinds, palette)
            handles = [
                Line2D([], [], linestyle="", markeredgewidth=0, **_look(place, palette)) for place in range(len(kinds))
            ]
            figure.legend(
                handles,
                texts,
                loc="outside lower center",
                ncols=per_row,
                frameon=False,
                handletextpad=0.3,
                handlelength=1,
                columnspacing=1.5,
            )
        return figure

    return draw


def _scatter(axes: Any, panel: _Panel, labels: np.ndarray, kinds: Sequence[int], palette: Palette) -> None:
    axes.set_axis_on()
    axes.patch.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for place, kind in enumerate(kinds):
        rows = panel.points[labels == kind]
        axes.plot(rows[:, 0], rows[:, 1], linestyle="", markersize=3.6, markeredgewidth=0, **_look(place, palette))
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(clipped(panel.who), fontsize=10.5)


def _look(place: int, palette: Palette) -> dict[str, Any]:
    """Colour and marker of a class: no two of twelve and more have both the same."""
    step = place // len(MARKERS)
    return {"color": palette.colour(place), "marker": MARKERS[(place + step) % len(MARKERS)]}

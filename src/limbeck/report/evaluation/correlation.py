"""How a student's correlations between classes differ from its teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from limbeck.evaluate.fidelity import Fidelity, MatrixDifference
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._draw import sheet
from limbeck.report.evaluation._words import cast
from limbeck.report.plates import Draw, Palette, Plate, add_colour_bar, clipped
from limbeck.report.sections import Section

_COLOURS = "viridis"
_NAMED = 12
_SIZE = (4.4, 3.8)


def correlation(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """A heat map a student, all in the same colours."""
    found = evaluation.fidelity
    if not found:
        return []
    name, title = f"{prefix}-correlation", "Correlations between classes"
    drawn = {who: each for who, each in found.items() if each.correlation.matrix is not None}
    if not drawn:
        if len(evaluation.classes) <= 1:
            return []
        many = f"the record holds no matrix of the {len(evaluation.classes):,} classes (it holds those of up to 200)"
        return [Section(name, title, lead=f"There is no heat map: {many}. The table above has the figures.")]
    shown = cast(evaluation, drawn, numbers)
    top = max(_absolute(drawn[who].correlation).max() for who in shown.students)
    plates = tuple(
        Plate(
            f"{name}-{number}",
            who,
            f"|difference|: {_told(found[who].correlation)}. {_authors(found[who])}",
            _alternative(who, found[who], evaluation),
            _heat(_absolute(found[who].correlation), float(top), evaluation.classes),
        )
        for who, number in shown.numbers.items()
        if number
    )
    lead = (
        "For each two classes: how far the correlation of their logits over all images differs between student and teacher. "
        "Bright: the student relates the two otherwise than its teacher. The colours mean the same in all figures."
        f"{shown.remark}"
    )
    return [Section(name, title, plates, lead=lead)]


def _absolute(difference: MatrixDifference) -> np.ndarray:
    values: np.ndarray = abs(np.asarray(difference.matrix, dtype=float))
    return values


def _told(difference: MatrixDifference) -> str:
    return f"mean {difference.mean:.3f}, at most {difference.maximum:.3f} ({difference.procedure})"


def _authors(fidelity: Fidelity) -> str:
    return f"{_capital(_told(fidelity.correlation_paper_2024))}. {_capital(_told(fidelity.correlation_paper_2025))}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _alternative(who: str, fidelity: Fidelity, evaluation: Evaluation) -> str:
    values = np.triu(_absolute(fidelity.correlation), k=1)
    order = np.argsort(values, axis=None)[::-1][:3]
    pairs = [np.unravel_index(place, values.shape) for place in order]
    largest = "; ".join(
        f"{evaluation.classes[one]} and {evaluation.classes[other]} {values[one, other]:.3f}"
        for one, other in pairs
        if values[one, other] > 0
    )
    text = (
        f"Absolute differences of correlations between classes, {who} and its teacher: {_told(fidelity.correlation)}."
    )
    return text + (f" Largest: {largest}." if largest else "")


def _heat(values: np.ndarray, top: float, names: Sequence[str]) -> Draw:
    def draw(palette: Palette) -> Figure:
        with sheet(palette, _SIZE) as figure:
            # The square leaves no room that the other engine would count with.
            figure.set_layout_engine("compressed")
            axes = figure.subplots()
            # Pixels as they are: the file stays small, and no viewer smooths them.
            image = axes.imshow(values, cmap=_COLOURS, vmin=0, vmax=top or 1.0, interpolation="none")
            if len(names) <= _NAMED:
                shown = [clipped(name, 12) for name in names]
                axes.set_xticks(range(len(names)), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
                axes.set_yticks(range(len(names)), shown)
            else:
                axes.set_xlabel("class")
                axes.set_ylabel("class")
            add_colour_bar(figure, axes, image, "|difference|", palette)
        return figure

    return draw

"""Figures as files for a paper: SVG and PDF, in colours for print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from limbeck.errors import SettingError
from limbeck.files import atomic_path
from limbeck.report.plates import Palette, Plate, clipped, dashes, marker, save

PRINT = Palette("#000000", "#cccccc", ("#0072b2", "#c44e00", "#00805c", "#a3478a", "#8a6100", "#5252b8"))
"""Black on white, and the colours of the page in light."""
_README = "README.md"


def write_plates(plates: Iterable[Plate], folder: Path) -> list[Path]:
    """Write each figure as NAME.svg and NAME.pdf, and a README.md that lists them with their captions.

    Text stays text (TrueType fonts are embedded in a PDF) and lines stay lines. The same figures make the same bytes. Files of
    these names are replaced, others are left alone.

    Returns: the paths, README.md last.

    Raises:
        SettingError: the folder cannot be written to.
    """
    named = _with_names(plates)
    paths: list[Path] = []
    path = folder
    try:
        for name, plate in named:
            for suffix in ("svg", "pdf"):
                path = folder / f"{name}.{suffix}"
                with atomic_path(path) as temporary:
                    _save(plate, temporary, suffix)
                paths.append(path)
        path = folder / _README
        with atomic_path(path) as temporary:
            temporary.write_text(_listed(named), encoding="utf-8")
    except OSError as error:
        raise SettingError(f"the figures cannot be written to {path}: {error.strerror or error}.") from error
    return [*paths, path]


def _with_names(plates: Iterable[Plate]) -> list[tuple[str, Plate]]:
    """Each with a name that is a file's on every system, and is no other's even where case does not count."""
    taken = {Path(_README).stem.lower()}
    named = []
    for plate in plates:
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "+_-") else "-" for c in plate.name).strip("-")[:80]
        choices = (stem or "figure", *(f"{stem or 'figure'}-{number}" for number in range(2, 10_000)))
        name = next(choice for choice in choices if choice.lower() not in taken)
        taken.add(name.lower())
        named.append((name, plate))
    return named


def _save(plate: Plate, path: Path, suffix: str) -> None:
    figure = plate.draw(PRINT)
    figure.patch.set_facecolor("white")
    if plate.legend:
        _add_legend(figure, plate)
    save(figure, path, PRINT, suffix, salt=plate.name, bbox_inches="tight")


def _add_legend(figure: Figure, plate: Plate) -> None:
    """Below the axes, where it covers nothing: the page has it beside the figure, and a file has nothing beside it."""
    handles = [_handle(number, plate.marked) for _, number in plate.legend]
    # matplotlib leaves out what begins with an underscore.
    labels = [clipped(f" {label}" if label.startswith("_") else label, 60) for label, _ in plate.legend]
    longest = max(len(label) for label in labels)
    columns = max(1, min(len(labels), int(figure.get_size_inches()[0] * 13 / (longest + 6))))
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _handle(number: int, marked: bool) -> Line2D:
    colour = PRINT.colour(number)
    if marked:
        return Line2D([], [], color=colour, marker=marker(number), linestyle="")
    line = Line2D([], [], color=colour, linewidth=1.6)
    if dash := dashes(number):
        line.set_dashes(dash)
    return line


def _listed(named: Sequence[tuple[str, Plate]]) -> str:
    made = "Made by `limbeck report --figures`; each is there as SVG and as PDF."
    boxes = "Letters that matplotlib's font lacks are boxes in a PDF, and whole in an SVG."
    lines = ["# Figures", "", f"{made} {boxes}", ""]
    for name, plate in named:
        lines += [
            f"## {name}",
            "",
            f"**{_plain(plate.title)}.** {_plain(plate.caption)}",
            "",
            _plain(plate.alternative),
            "",
        ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """On one line, with no character that Markdown would take for its own."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in line)

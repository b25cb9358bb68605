"""Sortable tables for the page, with all that comes from a record escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LONG = 40


@dataclass(frozen=True)
class Column:
    """A column's title, and what it holds in a sentence. number: it sorts by value and not by letters."""

    title: str
    help: str
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the value it is sorted by: None sorts last."""

    text: str
    value: float | None = None


def figure(value: float | None, text: Callable[[float], str]) -> Cell:
    """A number's cell; empty where there is none."""
    return Cell("", None) if value is None else Cell(text(value), value)


def table(
    label: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], muted: frozenset[str] = frozenset()
) -> str:
    """A table whose first column names the rows; ``muted`` ones, as the teacher's, stand back. Columns without a value go."""
    used = [place for place, column in enumerate(columns) if place == 0 or any(row[place].text for row in rows)]
    head = "".join(_head(columns[place]) for place in used)
    body = "\n".join(_row([row[place] for place in used], [columns[place] for place in used], muted) for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{html.escape(label)}" tabindex="0"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def note(text: str) -> str:
    """A remark below a table."""
    return f'<p class="note">{html.escape(text)}</p>'


def _head(column: Column) -> str:
    kind, style = ("number", "figure") if column.number else ("text", "words")
    return (
        f'<th scope="col" data-kind="{kind}"><button type="button" class="{style}" title="{html.escape(column.help)}">'
        f"{html.escape(column.title)}</button></th>"
    )


def _row(cells: Sequence[Cell], columns: Sequence[Column], muted: frozenset[str]) -> str:
    parts = []
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        sort = cell.text if not column.number else "" if cell.value is None else f"{cell.value:.8g}"
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        # A sentence goes on in the next line, so that what stands behind it is seen.
        words = "" if column.number else ' class="words long"' if len(cell.text) > _LONG else ' class="words"'
        parts.append(f'<{tag}{scope}{words} data-value="{html.escape(sort)}">{html.escape(cell.text)}</{tag}>')
    head = '<tr class="teacher">' if cells[0].text in muted else "<tr>"
    return f"{head}{''.join(parts)}</tr>"

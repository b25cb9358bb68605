"""The table of methods on the page: its columns' titles are buttons that sort it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from limbeck.report.material import Material
from limbeck.report.rows import MethodRow
from limbeck.report.sections import Section
from limbeck.report.table import Column, columns, note

_UNFINISHED = (
    "Methods in italics are unfinished: their figure is the best validation so far, they have no test figure, and no other "
    "row counts them."
)


def methods_section(material: Material) -> list[Section]:
    """The table of finished methods, and of unfinished ones as such."""
    rows = [*material.rows, *(method.row for method in material.unfinished)]
    if not rows:
        return []
    chosen = columns(rows)
    head = "".join(_head(column) for column in chosen)
    body = "\n".join(_row(row, chosen, unfinished=place >= len(material.rows)) for place, row in enumerate(rows))
    words = [note(material.rows) if material.rows else "", _UNFINISHED if material.unfinished else ""]
    said = html.escape(" ".join(filter(None, words)))
    table = (
        '<div class="scroll" role="region" aria-labelledby="results" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
        f'<p class="note">{said} <span class="screen">Press a column\'s title to sort.</span></p>'
    )
    return [Section("results", "Methods", html=table)]


def _head(column: Column) -> str:
    kind, style = ("text", "words") if column.value is None else ("number", "figure")
    return (
        f'<th scope="col" data-kind="{kind}"><button type="button" class="{style}" title="{html.escape(column.help)}">'
        f"{html.escape(column.title)}</button></th>"
    )


def _row(row: MethodRow, chosen: Sequence[Column], *, unfinished: bool) -> str:
    cells = []
    for number, column in enumerate(chosen):
        text = column.text(row)
        value = None if column.value is None else column.value(row)
        sort = text if column.value is None else "" if value is None else f"{value:.8g}"
        tag, scope = ("th", ' scope="row"') if number == 0 else ("td", "")
        words = ' class="words"' if column.value is None else ""
        cells.append(f'<{tag}{scope}{words} data-value="{html.escape(sort)}">{html.escape(text)}</{tag}>')
    kind = ' class="teacher"' if row.is_teacher else ' class="unfinished"' if unfinished else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"

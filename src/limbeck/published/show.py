"""The published tables for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_LISTED = 12
_COMMAND_WIDTH = 100
_MATRIX_CELL = 13
_CERTAINTY = {
    "stated": "",
    "inferred": "; that all of it is its authors' is inferred",
    "not recovered": "; its authors' own was not recovered",
}


def overview(rows: Sequence[dict[str, Any]]) -> RenderableType:
    """A line for each table: how many numbers are known, for how many there is a command, how many were measured."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("table", no_wrap=True)
    shown.add_column("what")
    for title in ("known", "commands", "measured"):
        shown.add_column(title, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: row["numbers"] == 0):
        other = f" (+{_count(row['other_runs'], 'run')} elsewhere)" if row["other_runs"] else ""
        counts = [row["numbers"] or "not recovered", row["commands"] or "–", f"{row['measured'] or '–'}{other}"]
        shown.add_row(*(Text(str(word)) for word in (row["id"], row["title"] + _marks(row), *counts)))
    note = "known: published figures. measured: of these, how many limbeck has at the protocol of the command."
    return Group(shown, Text(note, style="dim"))


def table(about: dict[str, Any], cells: Sequence[dict[str, Any]], width: int) -> RenderableType:
    """One table: the published figures, under each ours at the same protocol; what they rest on; what has no command."""
    if not cells:
        return _head(about)
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    needed = max(len(method) for method in methods) + 2 + _MATRIX_CELL * len(columns)
    body = _matrix(cells, methods, columns) if needed <= width else _list(cells)
    legend = "Published; under it limbeck's mean ± standard deviation over n seeds, at the protocol of the command."
    return Group(_head(about), body, Text(legend, style="dim"), *_other_runs(cells), *_without_command(cells))


def cells(about: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]], width: int) -> RenderableType:
    """One cell with its commands, or several, of whichever tables, in a list."""
    if len(known) != 1:
        names = Text("\n".join(f"{one['id']}: {one['title']}, {one['metric']}{_marks(one)}" for one in about))
        return Group(names, _list(known), *_other_runs(known), *_without_command(known))
    return Group(_head(about[0]), *_details(known[0], min(width, _COMMAND_WIDTH)))


def command_lines(line: str, width: int) -> str:
    """A command over several lines that a shell reads as one."""
    first, *others = (shlex.join(option) for option in _options(shlex.split(line)))
    lines = [first]
    for text in others:
        if len(lines[-1]) + len(text) + len(" \\ ") > width:
            lines.append("   ")
        lines[-1] += f" {text}"
    return " \\\n".join(lines)


def _options(words: Sequence[str]) -> list[list[str]]:
    """The verb and what stands with it, then each option with its values."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    return groups


def _marks(about: dict[str, Any]) -> str:
    """What has to stand beside figures that are not to be quoted as a paper's."""
    return " (secondary notes, unverified)" if about["evidence"] == "secondary" else ""


def _head(about: dict[str, Any]) -> RenderableType:
    lines = [
        about["title"] + (f" ({about['metric']})" if about["evidence"] != "none" else ""),
        f"from {about['source_text']}",
        about["evidence_text"][0].upper() + about["evidence_text"][1:] + ".",
        *([about["notes"]] if about["notes"] else []),
    ]
    return Text("\n".join(lines))


def _matrix(cells: Sequence[dict[str, Any]], methods: Sequence[str], columns: Sequence[str]) -> Table:
    found = {(cell["method"], cell["column"]): cell for cell in cells}
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("method", no_wrap=True)
    for column in columns:
        shown.add_column(Text(column.replace(" → ", "\n→ ")), justify="right")
    for method in methods:
        row = [found.get((method, column)) for column in columns]
        shown.add_row(Text(method), *(Text("" if cell is None else _both(cell)) for cell in row))
    return shown


def _list(cells: Sequence[dict[str, Any]]) -> Table:
    several = len({cell["table"] for cell in cells}) > 1
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (*(["table"] if several else []), "method", "column"):
        shown.add_column(title, overflow="fold")
    for title in ("published", "measured", "command"):
        shown.add_column(title, justify="right")
    for cell in cells:
        names = [*([cell["table"]] if several else []), cell["method"], cell["column"]]
        status = cell["plan"]["status"]
        last = [_published(cell), _ours(cell) or "–", "yes" if status == "command" else status]
        shown.add_row(*(Text(word) for word in (*names, *last)))
    return shown


def _both(cell: dict[str, Any]) -> str:
    return "\n".join(text for text in (_published(cell), _ours(cell)) if text)


def _published(cell: dict[str, Any]) -> str:
    if cell["published"] is None:
        return "–"
    spread = "" if cell["published_std"] is None else f" ± {cell['published_std']:g}"
    return f"{cell['published']:g}{spread}"


def _ours(cell: dict[str, Any]) -> str:
    """Our figure; where there is none, how many runs there are at another protocol."""
    measured = cell["measured"]
    if measured is None:
        return ""
    if measured["figure"] is not None:
        return _stat(measured["figure"])
    return f"{_count(len(measured['other']), 'run')} elsewhere" if measured["other"] else ""


def _stat(figure: dict[str, Any]) -> str:
    spread = "" if figure["std"] is None else f" ± {figure['std']:.2f}"
    return f"{figure['mean']:.2f}{spread} (n={figure['count']})"


def _other_runs(cells: Iterable[dict[str, Any]]) -> list[RenderableType]:
    found = {path: differs for cell in cells for path, differs in (cell["measured"] or {"other": {}})["other"].items()}
    if not found:
        return []
    lines = [f"{_count(len(found), 'run')} of these cells at another protocol, which no figure above contains:"]
    lines += [f"  {path}: {'; '.join(differs)}" for path, differs in list(found.items())[:_LISTED]]
    more = len(found) - _LISTED
    return [Text("\n".join([*lines, *([f"  and {more} more; --json has all."] if more > 0 else [])]))]


def _without_command(cells: Iterable[dict[str, Any]]) -> list[RenderableType]:
    reasons: dict[tuple[str, str], int] = {}
    for cell in cells:
        run = cell["plan"]
        if run["status"] != "command" and cell["published"] is not None:
            key = (run["status"], run["reason"])
            reasons[key] = reasons.get(key, 0) + 1
    lines = [f"  {status}: {reason} ({_count(number, 'cell')})" for (status, reason), number in reasons.items()]
    return [Text("\n".join(["Without a command:", *lines]))] if lines else []


def _details(cell: dict[str, Any], width: int) -> list[RenderableType]:
    run = cell["plan"]
    facts = [("method", cell["method"]), ("column", cell["column"]), ("published", _published(cell))]
    facts.append(("measured", _measured(cell["measured"], "at this protocol")))
    facts += [(f"own {name}", _measured(found, "at this protocol")) for name, found in cell["variants"].items()]
    if run["status"] == "command":
        facts += [("objective", run["objective"]), ("protocol", run["protocol"] + _CERTAINTY[run["certainty"]])]
    else:
        facts.append((run["status"], run["reason"]))
    facts += [("note", remark) for remark in run["remarks"]]
    shown = Table.grid(padding=(0, 2))
    for name, text in facts:
        shown.add_row(Text(name, style="bold"), Text(text))
    commands = [f"# {one['what']}\n{command_lines(one['line'], width)}" for one in run["commands"]]
    return [Text(), shown, *([Text("\n" + "\n".join(commands))] if commands else []), *_other_runs([cell])]


def _measured(found: dict[str, Any] | None, where: str) -> str:
    if found is None or (found["figure"] is None and not found["other"]):
        return "no run yet"
    other = _count(len(found["other"]), "run") + " at another protocol" if found["other"] else ""
    if found["figure"] is None:
        return f"no run {where}; {other}"
    taught = f", by a teacher of {found['teacher']['mean']:.2f}" if found["teacher"] is not None else ""
    differs = f", {found['difference']:+.2f} points from the published" if found["difference"] is not None else ""
    on = f", on {found['on']}" if found["on"] is not None else ""
    return f"{_stat(found['figure'])} {where}{on}{differs}{taught}" + (f"; {other}" if other else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

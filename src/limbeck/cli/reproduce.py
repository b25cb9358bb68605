"""``limbeck reproduce``: every published number we know, the command for it, and what was measured so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.output import Output
from limbeck.cli.settings import ReproduceSettings
from limbeck.published.plans import Plan, arxiv_of, plan
from limbeck.published.select import select
from limbeck.published.tables import EVIDENCE, Cell, PublishedTable, find_table, tables

if TYPE_CHECKING:
    from limbeck.published.measured import Measured, Shelf

_USUAL = (Path("runs"), Path("results"))


def reproduce(settings: ReproduceSettings, output: Output) -> None:
    """Show all tables, one table, or the cells that were asked for."""
    from limbeck.published import show

    chosen = [find_table(settings.table)] if settings.table else list(tables())
    asked = [settings.method, settings.teacher, settings.student, settings.pair]
    cells = select(chosen, *asked) if any(asked) else [cell for table in chosen for cell in table.cells()]
    shelf = _shelf(settings.runs)
    width = output.out.width
    if not settings.table and not any(asked):
        rows = [_overview(table, cells, shelf) for table in chosen]
        output.result({"tables": rows, "runs": _runs(shelf)}, lambda: show.overview(rows))
        output.say("'limbeck reproduce TABLE' shows a table; with --method and --pair the commands of a cell.")
    else:
        known = [_cell(cell, shelf) for cell in cells]
        about = [_about(table) for table in chosen if settings.table or any(cell.table == table for cell in cells)]
        value = {"tables": about, "cells": known, "runs": _runs(shelf)}
        whole = settings.table is not None and len(known) != 1
        output.result(value, lambda: show.table(about[0], known, width) if whole else show.cells(about, known, width))
    for path, problem in shelf.skipped.items() if shelf is not None else ():
        output.say(f"skipped {path}: {problem}")
    output.say(_tally(shelf))


def _shelf(folders: Sequence[Path]) -> Shelf | None:
    """The runs of the folders that were named, or of the usual ones; None where neither is there."""
    folders = folders or [folder for folder in _USUAL if folder.is_dir()]
    if not folders:
        return None

    from limbeck.published.measured import read_shelf  # with it comes torch

    return read_shelf(folders)


def _overview(table: PublishedTable, cells: Sequence[Cell], shelf: Shelf | None) -> dict[str, Any]:
    own = [(cell, plan(cell)) for cell in cells if cell.table is table and cell.figure is not None]
    measured = [_measured(run, shelf) for _, run in own]
    return {
        **_about(table),
        "numbers": table.numbers,
        "commands": sum(bool(run.commands) for _, run in own),
        "measured": sum(found is not None and found.figure is not None for found in measured),
        "other_runs": len({path for found in measured if found is not None for path in found.other}),
    }


def _about(table: PublishedTable) -> dict[str, Any]:
    values = asdict(table)
    source = {**values["source"], "arxiv": [*dict.fromkeys((*table.source.arxiv, *arxiv_of(table.id)))]}
    papers = [f"arXiv {number}" for number in arxiv_of(table.id)]
    return {
        **{name: values[name] for name in ("id", "title", "dataset", "metric")},
        "source": source,
        "source_text": ", ".join([str(table.source), *papers]),
        "evidence": table.evidence,
        "evidence_text": EVIDENCE[table.evidence],
        **{name: values[name] for name in ("recovered", "notes", "settings")},
    }


def _cell(cell: Cell, shelf: Shelf | None) -> dict[str, Any]:
    run = plan(cell)
    variants = {name: _found(_measured(run, shelf, name), cell) for name in run.variants}
    return {
        "table": cell.table.id,
        "method": cell.method,
        "column": cell.column.label,
        **{name: getattr(cell.column, name) for name in ("teacher", "student", "printed_student", "transfer")},
        "published": cell.figure,
        "published_std": cell.std,
        "plan": _commandless(run) if cell.figure is None else asdict(run),
        "measured": _found(_measured(run, shelf), cell),
        "variants": variants,
    }


def _commandless(run: Plan) -> dict[str, Any]:
    """Of a cell without a figure: there is nothing to reproduce."""
    return {**asdict(run), "status": "not yet", "reason": "no figure was published", "commands": []}


def _measured(run: Plan, shelf: Shelf | None, objective: str | None = None) -> Measured | None:
    return None if shelf is None else shelf.measured(run, objective)


def _found(measured: Measured | None, cell: Cell) -> dict[str, Any] | None:
    if measured is None:
        return None
    figure = measured.figure
    difference = None if figure is None or cell.figure is None else figure.mean - cell.figure
    return {
        "figure": None if figure is None else asdict(figure),
        "difference": difference,
        "teacher": None if measured.teacher is None else asdict(measured.teacher),
        "runs": list(map(str, measured.runs)),
        "on": measured.on,
        "other": {str(path): list(found) for path, found in measured.other.items()},
    }


def _runs(shelf: Shelf | None) -> dict[str, Any]:
    if shelf is None:
        return {"read": 0, "unfinished": 0, "evaluations": 0, "skipped": {}}
    skipped = {str(path): problem for path, problem in shelf.skipped.items()}
    counts = {"read": len(shelf.runs), "unfinished": shelf.unfinished, "evaluations": len(shelf.evaluations)}
    return {**counts, "skipped": skipped}


def _tally(shelf: Shelf | None) -> str:
    if shelf is None:
        return "No runs were read: there is no folder runs or results here; name others with --runs."
    unfinished = f", {shelf.unfinished} unfinished" if shelf.unfinished else ""
    skipped = f", {len(shelf.skipped)} skipped" if shelf.skipped else ""
    several = "" if len(shelf.evaluations) == 1 else "s"
    evaluated = f", and {len(shelf.evaluations)} evaluation{several}" if shelf.evaluations else ""
    return f"Runs: {len(shelf.runs)} finished{unfinished}{skipped}{evaluated}."

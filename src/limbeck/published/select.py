"""Which cells a reader asks for: by table, method and networks, however they are spelled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from limbeck.errors import SettingError, unknown_name
from limbeck.published.plans import network_name, other_names, plan
from limbeck.published.tables import Cell, PublishedTable

_BETWEEN = re.compile(r"\s*(?:/|->|→)\s*")


def select(
    tables: Sequence[PublishedTable],
    method: str | None = None,
    teacher: str | None = None,
    student: str | None = None,
    pair: str | None = None,
) -> list[Cell]:
    """The cells of the tables that have the method and the networks that are named.

    Args:
        method: as in the tables, or an objective of limbeck, such as ``icd_paper+kd``.
        teacher, student: as in the tables, or as in ``limbeck list models``.
        pair: both, as ``resnet32x4/resnet8x4``.

    Raises:
        SettingError: nothing has that name, with the nearest spelling; or no cell has all of them together.
    """
    cells = [cell for table in tables for cell in table.cells()]
    if pair is not None:
        first, second = _two(pair, cells)
        teacher, student = teacher or first, student or second
        _check_same(pair, teacher, student, first, second)
    cells = _by_method(cells, method) if method is not None else cells
    found = cells
    for kind, name, who in (("teacher", teacher, _teacher), ("student", student, _student)):
        if name is not None:
            found = _by_network(found, cells, kind, name, who)
    return found


def _two(pair: str, cells: Sequence[Cell]) -> tuple[str, str]:
    parts = _BETWEEN.split(pair.strip())
    if len(parts) != 2 or not all(parts):
        raise SettingError(unknown_name("pair", pair, _pairs(cells), "Write it as TEACHER/STUDENT."))
    return parts[0], parts[1]


def _check_same(pair: str, teacher: str, student: str, first: str, second: str) -> None:
    if not (_is_network(first, teacher) and _is_network(second, student)):
        raise SettingError(f"--pair {pair} names other networks than --teacher or --student; give one of them.")


def _by_method(cells: Sequence[Cell], method: str) -> list[Cell]:
    wanted = _plain(method)
    named = [cell for cell in cells if wanted in {_plain(name) for name in (cell.method, *other_names(cell.method))}]
    found = named or [cell for cell in cells if wanted in {_plain(text) for text in _objectives(cell)}]
    if not found:
        raise SettingError(unknown_name("method", method, dict.fromkeys(cell.method for cell in cells)))
    return found


def _objectives(cell: Cell) -> tuple[str, ...]:
    run = plan(cell)
    return (run.objective or "", *run.variants)


def _by_network(
    found: Sequence[Cell], all_cells: Sequence[Cell], kind: str, name: str, who: Callable[[Cell], str | None]
) -> list[Cell]:
    chosen = [cell for cell in found if _is_network(name, who(cell))]
    if chosen:
        return chosen
    if any(_is_network(name, who(cell)) for cell in all_cells):
        raise SettingError(
            f"there is no such pair with the {kind} {name}; the pairs are {', '.join(_pairs(all_cells))}."
        )
    names = dict.fromkeys(printed for cell in all_cells if (printed := who(cell)) is not None)
    raise SettingError(unknown_name(kind, name, names))


def _teacher(cell: Cell) -> str | None:
    return cell.column.teacher


def _student(cell: Cell) -> str | None:
    return cell.column.student


def _is_network(name: str, printed: str | None) -> bool:
    if printed is None:
        return False
    ours = network_name(printed)
    return name.casefold() == printed.casefold() or (ours is not None and ours == network_name(name))


def _pairs(cells: Sequence[Cell]) -> list[str]:
    columns = dict.fromkeys(cell.column for cell in cells)
    return list(dict.fromkeys(f"{c.teacher}/{c.student}" for c in columns if c.teacher and c.student))


def _plain(text: str) -> str:
    return "".join(text.casefold().split())

"""From rows with named columns to examples: which columns hold what, and what a cell may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.data.text.examples import KINDS, Example, Kind, Message
from limbeck.errors import DataError, SettingError, unknown_name

Row = Mapping[str, Any]
Columns = Mapping[str, str | int]

_FIELDS = ("prompt", "context", "completion", "messages", "text", "pair", "label")
_KEYS: Mapping[frozenset[str], Kind] = {
    frozenset({"prompt", "completion"}): "prompt",
    frozenset({"prompt"}): "prompt",
    frozenset({"messages"}): "chat",
    frozenset({"text", "label"}): "classification",
    frozenset({"text"}): "text",
}
_OPTIONAL = frozenset({"context", "pair"})

_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Layout:
    """Which column holds what.

    columns: the fields ``prompt`` (with ``context``, put under it), ``completion``, ``messages``, ``text``, ``pair`` and
    ``label``, each with the name of its column.
    """

    kind: Kind
    columns: Mapping[str, str]

    @property
    def separator(self) -> str:
        """What stands between prompt and completion: nothing where the column says prompt, else a line break.

        A question or an instruction was not written to be joined with its answer as it stands.
        """
        return "" if self.columns.get("prompt", "prompt") == "prompt" else "\n"


# Usual names, the more telling ones first.
_USUAL: tuple[Layout, ...] = (
    Layout("chat", {"messages": "messages"}),
    Layout("chat", {"messages": "conversations"}),
    Layout("prompt", {"prompt": "prompt", "completion": "completion"}),
    Layout("prompt", {"prompt": "question", "completion": "answer"}),
    Layout("prompt", {"prompt": "instruction", "context": "input", "completion": "output"}),
    Layout("prompt", {"prompt": "instruction", "completion": "output"}),
    Layout("prompt", {"prompt": "instruction", "context": "context", "completion": "response"}),
    Layout("prompt", {"prompt": "instruction", "completion": "response"}),
    Layout("classification", {"text": "sentence1", "pair": "sentence2", "label": "label"}),
    Layout("classification", {"text": "premise", "pair": "hypothesis", "label": "label"}),
    Layout("classification", {"text": "question", "pair": "sentence", "label": "label"}),
    Layout("classification", {"text": "sentence", "label": "label"}),
    Layout("classification", {"text": "text", "label": "label"}),
    Layout("text", {"text": "text"}),
    Layout("prompt", {"prompt": "prompt"}),
)


def layout_of(name: str, present: Sequence[str], columns: Columns | None, kind: Kind | None) -> Layout:
    """The layout of a table whose columns are ``present``: the one that is named, or the first of the usual ones that fits.

    Raises:
        SettingError: ``columns`` names a field or a column that does not exist, or the fields make no kind.
        DataError: none of the usual names is there.
    """
    if kind is not None and kind not in KINDS:
        raise SettingError(f"kind: {unknown_name('kind', kind, KINDS)}")
    if columns is not None:
        return _named(name, present, columns, kind)
    for layout in _USUAL:
        if kind in (None, layout.kind) and set(layout.columns.values()) <= set(present):
            return layout
    usual = "; ".join(", ".join(layout.columns.values()) for layout in _USUAL if kind in (None, layout.kind))
    raise DataError(
        f"{name} has the columns {', '.join(present) or '(none)'}, among which are no usual names"
        f"{'' if kind is None else f' of kind {kind}'} ({usual}). Say which column is what, as in "
        f'columns={{"prompt": "question", "completion": "answer"}}, {{"messages": ...}}, {{"text": ...}} or '
        f'{{"text": ..., "label": ...}}.'
    )


def _named(name: str, present: Sequence[str], columns: Columns, kind: Kind | None) -> Layout:
    wanted = {field: str(column) for field, column in columns.items()}
    for field, column in wanted.items():
        if field not in _FIELDS:
            raise SettingError(f"columns: {unknown_name('field', field, _FIELDS)}")
        if column not in present:
            raise SettingError(f"columns, {field}, of {name}: {unknown_name('column', column, present)}")
    found = _KEYS.get(frozenset(wanted) - _OPTIONAL)
    if found is None or kind not in (None, found):
        raise SettingError(
            f"columns gives {', '.join(wanted) or 'nothing'}, which does not make {kind or 'a kind of example'}; give prompt "
            "(perhaps context, and completion where there are any), or messages, or text, or text (perhaps pair) and label."
        )
    return Layout(found, wanted)


def examples_of(name: str, rows: Iterable[Row], layout: Layout) -> tuple[list[Example], list[Any]]:
    """Examples in the order of the rows, without labels, and the label cells of a classification.

    A cell that is missing or null is empty text, which tokenising counts and skips.

    Raises:
        DataError: a cell holds something other than text, or messages that are none, with the number of its row from 1.
    """
    examples, labels = [], []
    for index, row in enumerate(rows):
        where = f"{name}, row {index + 1}"
        examples.append(_example(where, index, row, layout))
        if "label" in layout.columns:
            labels.append(row.get(layout.columns["label"]))
    return examples, labels


def _example(where: str, index: int, row: Row, layout: Layout) -> Example:
    cells = {field: row.get(column) for field, column in layout.columns.items()}
    if layout.kind == "chat":
        return Example(index, messages=_messages(where, layout.columns["messages"], cells["messages"]))
    if layout.kind == "prompt" and isinstance(cells["prompt"], list):
        # A conversation that is split where the completion begins.
        halves = [
            _messages(where, layout.columns[part], cells[part]) for part in ("prompt", "completion") if part in cells
        ]
        return Example(index, messages=sum(halves, ()))
    texts = {field: _text(where, layout.columns[field], cells[field]) for field in layout.columns if field != "label"}
    if layout.kind == "classification":
        return Example(index, prompt=texts["text"], pair=texts.get("pair"))
    if layout.kind == "text":
        return Example(index, completion=texts["text"])
    parts = [texts["prompt"], texts.get("context", "")]
    return Example(index, prompt="\n".join(part for part in parts if part), completion=texts.get("completion", ""))


def _text(where: str, column: str, cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise DataError(f"{where}: the column '{column}' must hold text, got {type(cell).__name__}.")
    return str(cell)


def _messages(where: str, column: str, cell: Any) -> tuple[Message, ...]:
    if cell is None:
        return ()
    if isinstance(cell, str) or not isinstance(cell, Sequence):
        raise DataError(
            f"{where}: the column '{column}' must hold a list of messages with role and content, got {type(cell).__name__}."
        )
    return tuple(_message(where, column, turn) for turn in cell)


def _message(where: str, column: str, turn: Any) -> Message:
    named = turn if isinstance(turn, Mapping) else {}
    role, content = named.get("role", named.get("from")), named.get("content", named.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise DataError(
            f"{where}: a message in '{column}' needs a role and a content that are text, got {turn!r:.200}."
        )
    return Message(_ROLES.get(role, role), content)

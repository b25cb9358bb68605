"""The table of methods as files: Markdown, CSV, LaTeX and JSON, with the same rows in each."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from limbeck.errors import SettingError
from limbeck.files import atomic_path
from limbeck.report.rows import MethodRow
from limbeck.report.statistics import LEVEL
from limbeck.report.table import Column, columns, markdown, note

_ROWS = TypeAdapter(list[MethodRow])
_VERSION = 1


def write_tables(rows: Sequence[MethodRow], folder: Path, stem: str = "table") -> list[Path]:
    """Write ``STEM.md``, ``.csv``, ``.tex`` and ``.json`` to a folder, each whole or not at all; those there are replaced.

    Returns:
        The paths of the four files.

    Raises:
        SettingError: the folder cannot be made or written to.
    """
    paths = []
    for suffix, make in FORMATS.items():
        path = folder / f"{stem}{suffix}"
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(make(rows), encoding="utf-8", newline="")
        except OSError as error:
            raise SettingError(f"the table cannot be written to {path}: {error.strerror or error}.") from error
        paths.append(path)
    return paths


# JSON


def json_text(rows: Sequence[MethodRow]) -> str:
    """All values of the rows; :func:`rows_of_json` reads them back.

    An object with ``version`` (1), ``level`` (0.95, of the intervals), ``note`` (what is said below the table) and ``rows``:
    objects with the fields of :class:`limbeck.report.table.MethodRow`. A figure is an object with ``mean``, ``std`` and
    ``count``, or null; ``difference`` has ``low``, ``high``, ``p``, ``p_holm`` and ``verdict`` besides. Accuracies are shares
    in [0, 1] and ``scores`` has one for each of ``seeds``.
    """
    value = {"version": _VERSION, "level": LEVEL, "note": note(rows), "rows": [row.as_dict() for row in rows]}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def rows_of_json(text: str) -> list[MethodRow]:
    """The rows in a text of :func:`json_text`.

    Raises:
        SettingError: it is no such text, or of another version.
    """
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or value.get("version") != _VERSION:
            raise SettingError(f"the table is not one of limbeck's, version {_VERSION}.")
        return _ROWS.validate_python(value["rows"])
    except (json.JSONDecodeError, KeyError, ValidationError) as error:
        raise SettingError(f"the table cannot be read: {error}.") from None


# CSV


def csv_text(rows: Sequence[MethodRow]) -> str:
    """A line a row, with a head: plain numbers in full precision, accuracies as shares in [0, 1], empty where there is none.

    A control character in a name becomes a space, so that a row stays on its line.

    A figure has the columns ``_mean``, ``_std`` and ``_n``; the difference has ``_low``, ``_high``, ``_p``, ``_p_holm`` and
    ``_verdict`` besides. Seeds and their scores are parted by spaces.
    """
    records = [_record(row) for row in rows]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_HEAD)
    writer.writerows([record.get(name, "") for name in _HEAD] for record in records)
    return buffer.getvalue()


_FIGURES = (
    *("test", "difference", "kept", "agreement", "validation_best", "validation_last"),
    *("seconds", "shared_seconds", "memory_mb"),
)
_PLAIN = (
    *("label", "objective", "data", "student", "teacher", "variant", "epochs", "seeds", "scores", "baseline"),
    *("is_teacher", "parameters", "parameters_ratio", "shared_with"),
)
_PARTS = {"mean": "mean", "std": "std", "count": "n"}
_PARTS_OF_DIFFERENCE = {**_PARTS, **{name: name for name in ("low", "high", "p", "p_holm", "verdict")}}


def _parts(figure: str) -> dict[str, str]:
    return _PARTS_OF_DIFFERENCE if figure == "difference" else _PARTS


_HEAD = [*_PLAIN, *(f"{figure}_{part}" for figure in _FIGURES for part in _parts(figure).values())]


def _record(row: MethodRow) -> dict[str, str]:
    values = row.as_dict()
    record = {name: _cell(values[name]) for name in _PLAIN}
    for figure in _FIGURES:
        stat: Mapping[str, Any] = values[figure] or {}
        record |= {f"{figure}_{part}": _cell(stat.get(name)) for name, part in _parts(figure).items()}
    return record


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(_cell(item) or "-" for item in value) if isinstance(value, list | tuple) else _one_line(str(value))


# LaTeX


def latex(rows: Sequence[MethodRow]) -> str:
    """A ``tabular`` with the rules of the package ``booktabs``, and the note as a comment.

    Objectives stand in typewriter, figures in mathematics. Letters of other scripts than Latin are left as they are, for
    which XeLaTeX or LuaLaTeX is needed.
    """
    chosen = columns(rows)
    kinds = "".join("l" if column.value is None else "r" for column in chosen)
    remarks = [r"Needs \usepackage{booktabs}.", *textwrap.wrap(_one_line(note(rows)), 100)]
    lines = [*(f"% {remark}" for remark in remarks), rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    lines.append(" & ".join(latex_text(column.title) for column in chosen) + r" \\")
    lines.append(r"\midrule")
    lines += [
        " & ".join(_latex_cell(row, column, number) for number, column in enumerate(chosen)) + r" \\" for row in rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_text(text: str) -> str:
    r"""A text with what LaTeX takes for commands escaped, on one line.

    >>> latex_text("100 % of a_b & c")
    '100 \\% of a\\_b \\& c'
    """
    from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

    encoder = UnicodeToLatexEncoder(
        conversion_rules=[UnicodeToLatexConversionRule(RULE_DICT, _STRAIGHT), "defaults"],
        unknown_char_policy="keep",
        unknown_char_warning=False,
    )
    return re.sub("-(?=-)", "-{}", encoder.unicode_to_latex(_one_line(text)))


# Typesetting would make curly quotes and other letters of these, alone or in pairs.
_STRAIGHT = {ord("'"): r"\textquotesingle", ord("`"): r"\textasciigrave", ord('"'): r"{\char34}"}


def _one_line(text: str) -> str:
    # A comment ends where TeX or an editor sees the end of a line, and control characters are no part of a text.
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


_NUMBER = r"<?[+-]?\d[\d,]*(?:\.\d+)?"
_FIGURE = re.compile(rf"(?P<mean>{_NUMBER})(?: ± (?P<std>{_NUMBER}|–))?")


def _latex_cell(row: MethodRow, column: Column, number: int) -> str:
    text = column.text(row)
    if column.value is not None:
        return re.sub("–", "--", _FIGURE.sub(_mathematics, text))
    if number > 0 or row.is_teacher or row.teacher is None:
        return latex_text(text)
    expression, *remarks = text.split(" · ")
    return r" $\cdot$ ".join([rf"\texttt{{{latex_text(expression)}}}", *map(latex_text, remarks)])


def _mathematics(found: re.Match[str]) -> str:
    mean = found["mean"].replace(",", "{,}")
    if found["std"] is None:
        return f"${mean}$"
    return rf"${mean} \pm{{}}$ –" if found["std"] == "–" else rf"${mean} \pm {found['std']}$"


FORMATS: Mapping[str, Callable[[Sequence[MethodRow]], str]] = {
    ".md": markdown,
    ".csv": csv_text,
    ".tex": latex,
    ".json": json_text,
}
"""What makes the text of a table, by the file's suffix."""

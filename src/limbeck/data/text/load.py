"""``load_text``: a data set of text from one setting."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.data.seeds import mix
from limbeck.data.stratify import choose
from limbeck.data.text.arithmetic import arithmetic
from limbeck.data.text.columns import Columns, examples_of, layout_of
from limbeck.data.text.examples import Example, Kind, TextData, labels_of
from limbeck.data.text.readers import Table, read_tables
from limbeck.errors import DataError, SettingError, check_flag, check_number, check_whole, unknown_name
from limbeck.expression import parse_call

Splits = dict[str, Sequence[Example]]

ARITHMETIC = re.compile(r"arithmetic\s*(\(.*\))?\s*", re.DOTALL)


def load_text(
    spec: str | os.PathLike[str],
    *,
    columns: Columns | None = None,
    kind: Kind | None = None,
    separator: str | None = None,
    header: bool = True,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
    download: bool = True,
) -> TextData:
    """Load a data set of text.

    spec: ``PATH`` of a file (.jsonl, .json, .csv, .tsv, .parquet, .txt), of a folder with such a file for each of train,
        validation and test or with ``CLASS/*.txt``, or of a folder that ``save_to_disk`` wrote; ``hf:NAME`` or
        ``hf:NAME:CONFIG``; or ``arithmetic(digits=2, ...)``, which is generated (see :func:`arithmetic`).
        A .txt file is one document. In .tsv quotes are text like any other.
    columns: which column holds what: ``prompt`` (perhaps ``context``) and ``completion``, or ``messages``, or ``text``, or
        ``text`` (perhaps ``pair``) and ``label``. A column is its name, or without a header its number from 0. None finds
        them by their usual names.
    separator: what stands between prompt and completion where no chat template is used; None for nothing where the column
        of the prompt is called ``prompt``, and a line break where it has another name, such as question.
    kind: which of the usual names count, as where a table with ``text`` and ``label`` is to be modelled as text.
    header: whether the first line of CSV and TSV names the columns; without, they are 0, 1, 2, …
    val_fraction: in [0, 1), the part of train that becomes val where the source has none, classes in proportion, the same
        for the same ``split_seed``; of a single document its end, cut where a line ends. 0 for no val.
    train_limit, test_limit: at most so many examples, classes in proportion; train's after val was taken.
    download: whether a data set of ``hf:`` may be fetched.

    Everything is held in memory.

    Raises:
        SettingError: a setting is out of range, or names a column that is not there.
        DataError: the data is missing, damaged, has no rows, or labels that do not fit together.
        MissingExtraError: a package for the format is not installed.
    """
    text = os.fspath(spec)
    _check(header, val_fraction, train_limit, test_limit)
    if ARITHMETIC.fullmatch(text):
        if columns is not None or kind not in (None, "prompt"):
            raise SettingError("data arithmetic takes neither columns nor kind: it holds prompts and completions.")
        data = _arithmetic(text)
    else:
        data = _read(text, read_tables(text, header=header, download=download), columns, kind)
    if separator is not None:
        data = replace(data, separator=separator)
    if data.val is None and val_fraction > 0:
        train, val = _divide(data, val_fraction, split_seed)
        data = replace(data, train=train, val=val)
    test = None if data.test is None else _limited(data.test, test_limit, mix(split_seed, 2))
    return replace(data, train=_limited(data.train, train_limit, mix(split_seed, 1)), test=test)


def _arithmetic(text: str) -> TextData:
    settings = parse_call(text.strip(), "data").arguments
    accepted = inspect.signature(arithmetic).parameters
    for name in settings:
        if name not in accepted:
            raise SettingError(f"data arithmetic: {unknown_name('setting', name, accepted)}")
    return arithmetic(**settings)


def _check(header: bool, val_fraction: float, train_limit: int | None, test_limit: int | None) -> None:
    check_flag("header", header)
    check_number("val_fraction", val_fraction, low=0)
    if val_fraction >= 1:
        raise SettingError(f"val_fraction must be less than 1, got {val_fraction!r}.")
    for name, limit in (("train_limit", train_limit), ("test_limit", test_limit)):
        if limit is not None:
            check_whole(name, limit, low=1)


def _read(spec: str, tables: Mapping[str, Table], columns: Columns | None, kind: Kind | None) -> TextData:
    layout = layout_of(f"{spec} train", tables["train"].columns, columns, kind)
    splits: Splits = {}
    cells: dict[str, list[Any]] = {}
    for part, table in tables.items():
        absent = [column for column in layout.columns.values() if column not in table.columns]
        if absent:
            has = ", ".join(table.columns)
            raise DataError(f"{spec} {part} lacks the column '{absent[0]}', which its train has; it has {has}.")
        splits[part], cells[part] = examples_of(f"{spec} {part}", table.rows, layout)
    classes: tuple[str, ...] = ()
    if layout.kind == "classification":
        told = tables["train"].classes.get(layout.columns["label"], ())
        splits, classes = _labelled(spec, splits, cells, told)
    name = spec if spec.startswith("hf:") else Path(spec).name
    return TextData(
        name, layout.kind, splits["train"], splits.get("val"), splits.get("test"), classes, layout.separator
    )


def _labelled(
    spec: str, splits: Splits, cells: Mapping[str, list[Any]], told: tuple[str, ...]
) -> tuple[Splits, tuple[str, ...]]:
    """The splits with labels, and the names of the classes. A split whose labels are all kept secret (-1) is left out."""
    known = {part: column for part, column in cells.items() if part == "train" or not all(map(_secret, column))}
    for part, column in known.items():
        for row, cell in enumerate(column, start=1):
            if cell is None or cell == "" or isinstance(cell, list | dict):
                raise DataError(f"{spec} {part}, row {row}: a label must be a class or a number, got {cell!r:.100}.")
    texts = [str(cell).strip() for cell in known["train"]]
    numbers = [_number(text) for text in texts]
    if any(number is None for number in numbers):
        classes = tuple(sorted(set(texts)))
        return _numbered(spec, splits, known, {name: i for i, name in enumerate(classes)}), classes
    if all(re.fullmatch(r"-?\d+", text) for text in texts):
        classes = told or tuple(map(str, range(max(int(text) for text in texts) + 1)))
        return _numbered(spec, splits, known, {str(i): i for i in range(len(classes))}), classes
    values = {part: [_regressed(spec, part, cell) for cell in column] for part, column in known.items()}
    return _with_labels(splits, values), ()


def _secret(cell: Any) -> bool:
    return str(cell) == "-1"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbered(spec: str, splits: Splits, known: Mapping[str, list[Any]], numbers: Mapping[str, int]) -> Splits:
    if len(numbers) < 2:
        raise DataError(f"{spec} has one class only, '{next(iter(numbers), '')}'; a classifier needs at least two.")
    for part, column in known.items():
        strange = next((cell for cell in column if str(cell).strip() not in numbers), None)
        if strange is not None:
            accepted = ", ".join(list(numbers)[:20])
            raise DataError(f"{spec} {part} has the label '{strange}', which is not among the classes: {accepted}.")
    return _with_labels(
        splits, {part: [numbers[str(cell).strip()] for cell in column] for part, column in known.items()}
    )


def _regressed(spec: str, part: str, cell: Any) -> float:
    value = _number(str(cell).strip())
    if value is None:
        raise DataError(f"{spec} {part} has the label '{cell}', where train has numbers only.")
    return value


def _with_labels(splits: Splits, values: Mapping[str, Sequence[int | float]]) -> Splits:
    return {
        part: [replace(example, label=value) for example, value in zip(splits[part], labels, strict=True)]
        for part, labels in values.items()
    }


def _divide(data: TextData, fraction: float, seed: int) -> tuple[Sequence[Example], Sequence[Example] | None]:
    if data.kind == "text" and len(data.train) == 1:
        return _divide_document(data.train[0], fraction)
    count = min(len(data.train) - 1, max(1, round(fraction * len(data.train))))
    if count < 1:
        raise DataError(
            f"{data.name} has a single example, of which no validation can be held out; set val_fraction=0."
        )
    chosen = set(choose(labels_of(data.train), count, seed, keep=1).tolist())
    parts: tuple[list[Example], list[Example]] = ([], [])
    for position, example in enumerate(data.train):
        parts[position in chosen].append(example)
    return parts


def _divide_document(example: Example, fraction: float) -> tuple[Sequence[Example], Sequence[Example]]:
    text = example.completion
    wanted = round((1 - fraction) * len(text))
    after = text.rfind("\n", 0, wanted) + 1
    cut = after if after > 0 and text[after:].strip() and text[:after].strip() else wanted
    return [replace(example, completion=text[:cut])], [replace(example, completion=text[cut:])]


def _limited(split: Sequence[Example], limit: int | None, seed: int) -> Sequence[Example]:
    if limit is None or len(split) <= limit:
        return split
    return [split[position] for position in choose(labels_of(split), limit, seed).tolist()]

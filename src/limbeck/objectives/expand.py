"""Several objectives in one text: names with commas between them, and ranges such as ``icd(alpha=[0.1, 0.5, 1])``."""

from __future__ import annotations

import ast
import itertools
import math
import types
import typing
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import SettingError
from limbeck.expression import split_at_commas
from limbeck.objectives.registry import objective_class, parse_objective
from limbeck.objectives.schedules import SCHEDULES, weight_text

LIMIT = 200
"""How many expressions a text may stand for."""


def expand_objectives(objectives: str | Sequence[str]) -> list[str]:
    """The expressions that a text stands for, in its order, each as one would write it for a run of its own.

    Commas outside brackets part them. A list in square brackets where one value belongs is a range, and each of its values
    makes an expression: of an argument, as in ``icd(alpha=[0.1, 0.5])``, or of a weight, as in ``ce + [1, 2]*icd()`` and
    ``decay([10, 100], 0.7)*kd()``.
    Several ranges in one expression make every combination, the last one running fastest. An argument that takes a list
    itself (by its annotation) has a range only as a list of lists, as in ``mlkd(temperatures=[[2, 4], [4]])``.

    >>> expand_objectives("icd+kd, ce + [1, 2]*icd(alpha=0.1)")
    ['icd+kd', 'ce + 1*icd(alpha=0.1)', 'ce + 2*icd(alpha=0.1)']

    Args:
        objectives: the text, or several such texts.

    Raises:
        SettingError: a text that cannot be read, an unknown name or argument, a value that is refused, an empty range, an
            objective that is named twice, however it is written, or more than ``LIMIT`` expressions.
    """
    texts = [objectives] if isinstance(objectives, str) else list(objectives)
    items = [item for text in texts for item in split_at_commas(text)]
    if not items:
        raise SettingError("objectives: none is named; name some, as in 'kd, icd(alpha=0.5), crd'.")
    ranges = [_ranges(item) for item in items]
    _check_number(items, [math.prod(len(part.values) for part in parts) for parts in ranges])
    expressions = [text for item, parts in zip(items, ranges, strict=True) for text in _combinations(item, parts)]
    _check_unique(expressions)
    return expressions


def objective_identity(text: str) -> tuple[tuple[str, str], ...]:
    """What two texts have in common when they make the same objective, such as ``kd+icd`` and ``ce + kd() + icd()``.

    Raises:
        SettingError: the text makes no objective.
    """
    return tuple(sorted((str(part), weight_text(weight)) for _, weight, part in parse_objective(text).entries()))


def _check_number(items: Sequence[str], counts: Sequence[int]) -> None:
    if sum(counts) > LIMIT:
        largest = max(zip(counts, items, strict=True))
        raise SettingError(
            f"objectives: the lists stand for {sum(counts):,} expressions, and at most {LIMIT} are taken at once; "
            f"{largest[1]!r} alone stands for {largest[0]:,}. Make its lists shorter."
        )


def _check_unique(expressions: Sequence[str]) -> None:
    # An error rather than left out: whoever asks for one objective twice has mistyped a value, and would miss a row.
    first: dict[tuple[tuple[str, str], ...], str] = {}
    for text in expressions:
        other = first.setdefault(objective_identity(text), text)
        if other is not text:
            same = "is named twice" if other == text else f"and {text!r} are the same objective"
            raise SettingError(f"objectives: {other!r} {same}; name each once, and ask for repetitions with seeds.")


# Ranges


@dataclass(frozen=True)
class _Range:
    """A list in the text that stands for one value after the other. start, end: its place in the text's UTF-8 bytes."""

    start: int
    end: int
    values: tuple[str, ...]


def _ranges(text: str) -> list[_Range]:
    """The ranges of an expression, from left to right."""
    source = text.encode(errors="surrogatepass")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # a preset's name, or a mistake that is told when the objective is made
    lists = sorted(_lists(tree), key=lambda node: node.col_offset)
    for node in lists:
        if not node.elts:
            raise SettingError(f"objectives: a list of values in {text!r} is empty; name at least one value.")
    return [_Range(node.col_offset, _end(node), tuple(_text(source, item) for item in node.elts)) for node in lists]


def _lists(tree: ast.expr) -> Iterator[ast.List]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp):
            waiting += [node.left, node.right]
            if isinstance(node.op, ast.Mult):
                yield from (side for side in (node.left, node.right) if _holds_weights(side))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            waiting += node.args
            if node.func.id in SCHEDULES:  # whose arguments are all single values, by place too
                yield from (value for value in node.args if isinstance(value, ast.List))
            levels = _list_levels(node.func.id)
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg and isinstance(value, ast.List) and _depth(value) > levels.get(keyword.arg, 0):
                    yield value


def _holds_weights(node: ast.expr) -> typing.TypeGuard[ast.List]:
    return isinstance(node, ast.List) and all(_is_number(item) for item in node.elts)


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) else node
    return isinstance(inner, ast.Constant) and type(inner.value) in (int, float)


def _depth(node: ast.expr) -> int:
    """How many lists stand around each of the values."""
    if not isinstance(node, ast.List | ast.Tuple):
        return 0
    return 1 + min((_depth(item) for item in node.elts), default=0)


def _combinations(text: str, ranges: Sequence[_Range]) -> Iterator[str]:
    source = text.encode(errors="surrogatepass")
    starts = [0, *(part.end for part in ranges)]
    ends = [*(part.start for part in ranges), len(source)]
    between = [source[start:end].decode(errors="surrogatepass") for start, end in zip(starts, ends, strict=True)]
    for values in itertools.product(*(part.values for part in ranges)):
        yield "".join(itertools.chain.from_iterable(zip(between, [*values, ""], strict=True)))


def _text(source: bytes, node: ast.expr) -> str:
    return source[node.col_offset : _end(node)].decode()


def _end(node: ast.expr) -> int:
    assert node.end_col_offset is not None
    return node.end_col_offset


# What an argument takes


def _list_levels(name: str) -> dict[str, int]:
    """How many levels of lists each argument takes: by its annotation, or else its default; 0 for a single value."""
    if name in SCHEDULES:
        return {}
    cls = objective_class(name)
    levels = {key: int(isinstance(value, list | tuple)) for key, value in cls.defaults().items()}
    try:
        hints = typing.get_type_hints(cls.__init__)
    except (NameError, AttributeError, TypeError):
        return levels  # some annotation exists for a type checker alone
    return levels | {key: _levels(annotation) for key, annotation in hints.items()}


def _levels(annotation: Any) -> int:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return max(_levels(part) for part in typing.get_args(annotation))
    kind = typing.get_origin(annotation) or annotation
    if kind is object or not isinstance(kind, type) or not (issubclass(list, kind) or issubclass(tuple, kind)):
        return 0
    return 1 + max((_levels(part) for part in typing.get_args(annotation)), default=0)

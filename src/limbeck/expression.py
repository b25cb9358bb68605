"""Reads expressions such as ``ce + 0.9*kd(temperature=4)`` and ``timm:resnet18(drop_rate=0.1)`` without running code.

Only names, numbers, strings, booleans, lists, tuples, dicts, sums, products and calls with keyword arguments exist in
this language, and in products also schedules such as ``decay(100, 0.7)``, where the caller names them; everything else is an
error that points at the place.
"""

from __future__ import annotations

import ast
import difflib
import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from limbeck.errors import SettingError

_MAX_DEPTH = 100
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_PLAIN = "an argument is a number, a string in quotes, True, False, None, a list or a dict"


@dataclass(frozen=True)
class Call:
    """A name with keyword arguments: ``kd(temperature=4)``; ``kd`` alone is a call without arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    operands: tuple[Sum, ...] = ()


@dataclass(frozen=True)
class Factor:
    """A schedule that stands for a weight, with its arguments by place and by name: ``decay(100, factor=0.7)``.

    text: as it was written, for messages.
    """

    name: str
    values: tuple[Any, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    text: str = field(default="", compare=False)


@dataclass(frozen=True)
class Scheduled:
    """A weight that changes over the epochs: a number times schedules."""

    number: float
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Sum:
    """A weighted sum of calls."""

    terms: tuple[tuple[float | Scheduled, Call], ...]


def parse_sum(text: str, what: str = "objective", schedules: Collection[str] = ()) -> Sum:
    """Parse a weighted sum of calls. ``schedules`` names what may stand for a weight.

    >>> parse_sum("ce + 0.9*kd(temperature=4)").terms[1]
    (0.9, Call(name='kd', arguments={'temperature': 4}, operands=()))
    """
    return _Reader(text, what, schedules).sum(_parse(text, what))


def parse_call(text: str, what: str) -> Call:
    """Parse one call without a weight, such as ``convnet(widths=[8, 16])``."""
    node = _parse(text, what)
    reader = _Reader(text, what)
    if not isinstance(node, ast.Name | ast.Call):
        raise reader.error(node, "expected a name, or a name with keyword arguments in parentheses")
    return reader.call(node)


def split_at_commas(text: object, what: str = "objectives") -> list[str]:
    """The parts between commas that stand outside of brackets and quotes. A comma at the end is allowed.

    Raises:
        SettingError: no text, or nothing between two commas; ``what`` is the setting, for the message.
    """
    if not isinstance(text, str):
        raise SettingError(f"{what}: expected text such as 'kd, icd(alpha=0.5), crd', got {text!r}.")
    # One line, so that the places that Python's parser gives are places in the text.
    text = " ".join(text.splitlines()).strip().removesuffix(",")
    ends = [place for place, character, closed in _characters(text) if character == "," and closed]
    starts = [0, *(end + 1 for end in ends)]
    items = [text[start:end].strip() for start, end in zip(starts, [*ends, len(text)], strict=True)]
    if len(items) > 1 and "" in items:
        raise SettingError(f"{what}: nothing stands between two of the commas of {text!r}.")
    return [item for item in items if item]


def _characters(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each character outside of quotes, its place, and whether every bracket before it is closed."""
    expected: list[str] = []
    quote, escaped = "", False
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        else:
            if character in _CLOSING:
                expected.append(_CLOSING[character])
            elif expected and character == expected[-1]:
                expected.pop()
            yield place, character, not expected


def _parse(text: str, what: str) -> ast.expr:
    if not text.strip():
        raise SettingError(f"the {what} is empty.")
    try:
        with warnings.catch_warnings():
            # Python only warns of '1if x' and of '\d' in a string; here they are mistakes.
            warnings.simplefilter("error")
            node = ast.parse(text.strip(), mode="eval").body
    except (RecursionError, MemoryError):
        raise SettingError(f"{what} {text!r}: is too deeply nested.") from None
    except (SyntaxError, ValueError, Warning) as error:
        column = getattr(error, "offset", None) or 1
        reason = getattr(error, "msg", None) or str(error)
        raise SettingError(f"{what} {text!r}: cannot be read at character {column}: {reason}.") from None
    if _deeper_than(node, _MAX_DEPTH):
        raise SettingError(f"{what} {text!r}: is too deeply nested, or has too many terms.")
    return node


def _deeper_than(node: ast.AST, limit: int) -> bool:
    level = [node]
    for _ in range(limit):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
    return bool(level)


def _name(node: ast.expr) -> str:
    """The name that stands there or is called; empty for anything else."""
    name = node.func if isinstance(node, ast.Call) else node
    return name.id if isinstance(name, ast.Name) else ""


def _number(weight: float | Scheduled) -> float:
    return weight.number if isinstance(weight, Scheduled) else weight


def _times(one: float | Scheduled, other: float | Scheduled) -> float | Scheduled:
    factors = tuple(factor for each in (one, other) if isinstance(each, Scheduled) for factor in each.factors)
    number = _number(one) * _number(other)
    return Scheduled(number, factors) if factors else number


class _Reader:
    def __init__(self, text: str, what: str, schedules: Collection[str] = ()) -> None:
        self.text, self.what, self.schedules = text.strip(), what, schedules

    def error(self, node: ast.AST, reason: str) -> SettingError:
        return SettingError(f"{self.what} {self.text!r}: {reason}, got {self.source(node)!r}.")

    def source(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text, node) or self.text

    def sum(self, node: ast.expr) -> Sum:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return Sum(self.sum(node.left).terms + self.sum(node.right).terms)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return self.product(node)
        return Sum(((1.0, self.call(node)),))

    def product(self, node: ast.BinOp) -> Sum:
        for scalar, other in ((node.left, node.right), (node.right, node.left)):
            weight = self.weight(scalar)
            if weight is not None:
                terms = tuple((_times(weight, inner), call) for inner, call in self.sum(other).terms)
                if not all(math.isfinite(_number(inner)) for inner, _ in terms):
                    raise self.error(node, "numbers must be finite")
                return Sum(terms)
        raise self.error(node, f"a product needs a number on one side{self.or_a_schedule(node)}")

    def or_a_schedule(self, node: ast.BinOp) -> str:
        if not self.schedules:
            return ""
        calls = [side for side in (node.left, node.right) if isinstance(side, ast.Call)]
        close = [match for call in calls for match in difflib.get_close_matches(_name(call), self.schedules, 1, 0.7)]
        guess = f"; did you mean '{close[0]}'?" if close else ""
        return f", or a schedule ({', '.join(self.schedules)}){guess}"

    def weight(self, node: ast.expr) -> float | Scheduled | None:
        """What a node says as a weight: a number, a schedule or a product of these; None for anything else."""
        if self.is_number(node):
            try:
                return float(self.value(node))
            except OverflowError:
                raise self.error(node, "numbers must be finite") from None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            left, right = self.weight(node.left), self.weight(node.right)
            return None if left is None or right is None else _times(left, right)
        return Scheduled(1.0, (self.factor(node),)) if _name(node) in self.schedules else None

    def factor(self, node: ast.expr) -> Factor:
        if not isinstance(node, ast.Call):
            return Factor(_name(node), text=self.source(node))
        values = tuple(self.value(value) for value in node.args)
        return Factor(_name(node), values, self.keywords(node), self.source(node))

    def call(self, node: ast.expr) -> Call:
        if _name(node) in self.schedules:
            raise self.error(node, "a schedule is a weight, and needs an objective, as in decay(100, 0.7)*kd()")
        if isinstance(node, ast.Name):
            return Call(node.id)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            raise self.error(node, "expected a name, a number times a name, or a sum of these")
        arguments = self.keywords(node)
        for operand in node.args:
            if not isinstance(operand, ast.Name | ast.Call | ast.BinOp):
                raise self.error(
                    operand, f"arguments of {node.func.id} are given by name, as in {node.func.id}(name=…)"
                )
        return Call(node.func.id, arguments, tuple(self.sum(operand) for operand in node.args))

    def keywords(self, node: ast.Call) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error(node, "'**' is not part of this language")
            if keyword.arg in arguments:
                raise self.error(node, f"the argument '{keyword.arg}' is given twice")
            arguments[keyword.arg] = self.value(keyword.value)
        return arguments

    @staticmethod
    def is_number(node: ast.expr) -> bool:
        inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) else node
        return isinstance(inner, ast.Constant) and type(inner.value) in (int, float)

    def value(self, node: ast.expr) -> Any:
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise self.error(node, _PLAIN) from None
        self.check_plain(node, value)
        return value

    def check_plain(self, node: ast.expr, value: Any) -> None:
        if isinstance(value, list | tuple | dict):
            for item in (*value, *value.values()) if isinstance(value, dict) else value:
                self.check_plain(node, item)
        elif isinstance(value, float) and not math.isfinite(value):
            raise self.error(node, "numbers must be finite")
        elif value is not None and not isinstance(value, bool | int | float | str):
            # literal_eval also reads bytes, sets, complex numbers and '...'.
            raise self.error(node, _PLAIN)

"""Reads the text that names a model: ``[SOURCE:]NAME[(keyword=literal, …)][@WEIGHTS]``."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import SettingError
from limbeck.expression import parse_call
from limbeck.models.sources import sources

PRETRAINED, RANDOM = "pretrained", "random"


@dataclass(frozen=True)
class ModelSpec:
    """The parts of a model's text.

    text: the whole without the weights.
    weights: ``pretrained``, a path, or None.
    """

    text: str
    source: str
    name: str
    arguments: dict[str, Any]
    weights: str | None


def parse_spec(text: str, *, unprefixed: str = "zoo") -> ModelSpec:
    """Split a model's text into its parts. A name without a source before it is one of ``unprefixed``.

    Weights are all that follows the first ``@`` after the name and its arguments, so a path may hold any character. A
    name that is an existing folder may hold any too, in sources that take folders.

    Raises:
        SettingError: the text cannot be read.
    """
    spec = text.strip()
    source, rest = _split_source(spec, unprefixed)
    end = _name_end(rest, sources()[source].names_are_folders)
    name, tail = rest[:end].strip(), rest[end:]
    written, weights = _split_tail(tail)
    if not name:
        raise SettingError(f"the model {text!r} has no name; expected [SOURCE:]NAME[(key=value, …)][@WEIGHTS].")
    if weights is not None and not weights.strip():
        raise SettingError(f"the model {text!r} names no weights after '@'; expected a file or '{PRETRAINED}'.")
    shown = spec if weights is None else spec[: len(spec) - len(weights) - 1].strip()
    return ModelSpec(shown, source, name, _arguments(name, written), None if weights is None else weights.strip())


def check_positive(numbers: Mapping[str, Any]) -> None:
    """Raise SettingError unless every number that is given is a whole one above 0."""
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise SettingError(f"{name} must be a positive whole number, got {number!r}.")


def check_reserved(parsed: ModelSpec, reserved: Mapping[str, str]) -> None:
    """Raise SettingError for an argument that nobody may write, with what to write instead."""
    for argument in parsed.arguments:
        if argument in reserved:
            raise SettingError(f"{parsed.text}: '{argument}' is not an argument here; {reserved[argument]}.")


def check_classes(parsed: ModelSpec, num_classes: int | None) -> None:
    """Raise SettingError when the text says another number of classes than the data."""
    written: Any = parsed.arguments.get("num_classes", num_classes)
    if num_classes is not None and written != num_classes:
        raise SettingError(f"{parsed.text} has num_classes={written!r}, the data has {num_classes} classes.")


def _split_source(spec: str, unprefixed: str) -> tuple[str, str]:
    prefix = re.match(r"([^:(@]*):", spec)
    if prefix is None:
        return unprefixed, spec
    if prefix[1].strip() in sources():
        return prefix[1].strip(), spec[prefix.end() :]
    return "module", spec


def _name_end(rest: str, may_be_folder: bool) -> int:
    ends = [match.start() for match in re.finditer(r"[(@]", rest)] + [len(rest)]
    if may_be_folder:
        folders = [end for end in ends if rest[:end] and Path(rest[:end]).expanduser().is_dir()]
        return max(folders, default=ends[0])
    return ends[0]


def _split_tail(tail: str) -> tuple[str, str | None]:
    """``(a=1)@file`` to ``(a=1)`` and ``file``."""
    for match in re.finditer("@", tail):
        before = tail[: match.start()].strip()
        # An '@' inside a quoted argument leaves a text before it that is not a whole call.
        if not before or _is_call(before):
            return before, tail[match.end() :]
    return tail.strip(), None


def _is_call(arguments: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return isinstance(ast.parse(f"_{arguments}", mode="eval").body, ast.Call)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _arguments(name: str, written: str) -> dict[str, Any]:
    if not written:
        return {}
    # Names such as 'resnet50.a1_in1k' are no identifiers; only the arguments are read as an expression.
    identifier = "_" * (not name[0].isalpha()) + re.sub(r"\W", "_", name)
    call = parse_call(identifier + written, "model")
    if call.operands:
        raise SettingError(f"{name}: arguments are given by name, as in {name}(name=value), got {written!r}.")
    return call.arguments

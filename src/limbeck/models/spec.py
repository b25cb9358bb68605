"""Reads the text that names a model: ``[SOURCE:]NAME[(keyword=literal, …)][@WEIGHTS]``."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import SettingError
from limbeck.expression import parse_call
from limbeck.models.sources import sources

PRETRAINED = "pretrained"


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


def parse_spec(text: str) -> ModelSpec:
    """Split a model's text into its parts.

    Weights are all that follows the first ``@`` after the name and its arguments, so a path may hold any character. A
    name that is an existing folder may hold any too, in sources that take folders.

    Raises:
        SettingError: the text cannot be read.
    """
    spec = text.strip()
    source, rest = _split_source(spec)
    end = _name_end(rest, sources()[source].names_are_folders)
    name, tail = rest[:end].strip(), rest[end:]
    written, weights = _split_tail(tail)
    if not name:
        raise SettingError(f"the model {text!r} has no name; expected [SOURCE:]NAME[(key=value, …)][@WEIGHTS].")
    if weights is not None and not weights.strip():
        raise SettingError(f"the model {text!r} names no weights after '@'; expected a file or '{PRETRAINED}'.")
    shown = spec if weights is None else spec[: len(spec) - len(weights) - 1].strip()
    return ModelSpec(shown, source, name, _arguments(name, written), None if weights is None else weights.strip())


def _split_source(spec: str) -> tuple[str, str]:
    prefix = re.match(r"([^:(@]*):", spec)
    if prefix is None:
        return "zoo", spec
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

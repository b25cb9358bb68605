"""LaTeX formulas as a line of text that a terminal shows."""

from __future__ import annotations

import re
from typing import Any

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def readable(latex: str) -> list[str]:
    """A formula as lines of text, one a statement: ``\\frac{a+b}{c}`` becomes (a+b)/c, Greek letters themselves."""
    from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

    context = get_default_latex_context_db()
    macros = [MacroTextSpec("frac", simplify_repl=_fraction), *map(_plain(MacroTextSpec), _PLAIN.items())]
    context.add_context_category("limbeck", macros=macros, prepend=True)
    convert = LatexNodes2Text(latex_context=context, math_mode="text", keep_comments=True)
    statements = re.split(r",?\s*\\q?quad\s*|\\\\", latex)
    return [_tidy(convert.latex_to_text(statement)) for statement in statements if statement.strip()]


# What pylatexenc drops, or writes without the space that keeps names apart.
_PLAIN = {"|": "‖", "Vert": "‖", "log": "log ", "exp": "exp ", "max": "max ", "min": "min ", "left": "", "right": ""}


def _plain(spec: Any) -> Any:
    return lambda item: spec(item[0], simplify_repl=item[1])


def _fraction(node: Any, l2tobj: Any) -> str:
    above, below = (_tidy(l2tobj.nodelist_to_text([part])) for part in node.nodeargs)
    return f"{_bracketed(above)}/{_bracketed(below)}"


def _bracketed(text: str) -> str:
    whole = re.fullmatch(r"[^\s+\-−*/]+", text)
    return text if whole else f"({text})"


def _tidy(text: str) -> str:
    text = re.sub(r"\^(\d)(?!\w)", lambda found: found[1].translate(_RAISED), text)
    text = re.sub(r"\s+", " ", text).strip().rstrip(",")
    return re.sub(r"([(\[⟨]) | (?=[)\]⟩,])", r"\1", text)

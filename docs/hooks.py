"""MkDocs hooks: formulas become MathML, which browsers draw without any script, and objective pages find their way in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

# Code comes first: a dollar in it is a dollar.
_PARTS = re.compile(
    r"(?P<fence>^(?P<mark>```+|~~~+)[^\n]*\n.*?^(?P=mark)[ ]*$)"
    r"|(?P<code>(?P<ticks>`+)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`))"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])",
    re.DOTALL | re.MULTILINE,
)
_HOLDER = re.compile(r"MATHML(\d+)LMHTAM")
# Formulas of the page under way; Markdown must not see what is in them.
_formulas: list[str] = []


def mathml(latex: str, *, block: bool) -> str:
    """MathML of a formula, on one line."""
    # One word, not a product of letters.
    latex = re.sub(r"\\mathrm(?=\{\w\w)", r"\\operatorname", latex)
    # Statements that stand side by side in a paper stand below each other here, where lines are short.
    statements = re.split(r",?\s*\\q?quad\s*", latex) if block else [latex]
    shown = "".join(convert(" ".join(part.split()), display="block" if block else "inline") for part in statements)
    return f'<span class="formula">{shown}</span>' if block else shown


def on_config(config: Any) -> Any:
    """Put every page of docs/objectives into the navigation."""
    folder = Path(config["docs_dir"]) / "objectives"
    names = sorted(path.name for path in folder.glob("*.md") if path.name != "index.md")
    pages = [{"Overview": "objectives/index.md"}, *({Path(name).stem: f"objectives/{name}"} for name in names)]
    config["nav"] = [
        {"Objectives": pages} if entry == {"Objectives": "objectives"} else entry for entry in config["nav"]
    ]
    return config


def on_page_markdown(markdown: str, **more: Any) -> str:
    """Set formulas aside before Markdown is read."""
    _formulas.clear()
    return _PARTS.sub(_set_aside, markdown)


def _set_aside(found: re.Match[str]) -> str:
    block, inline = found["block"], found["inline"]
    if block is None and inline is None:
        return found[0]
    _formulas.append(mathml(block or inline, block=block is not None))
    return f"MATHML{len(_formulas) - 1}LMHTAM"


def on_page_content(html: str, **more: Any) -> str:
    """Put them back."""
    return _HOLDER.sub(lambda found: _formulas[int(found[1])], html)

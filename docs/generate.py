"""Writes docs/objectives from what ``limbeck explain`` and ``limbeck list`` know. Run it after changing an objective.

python docs/generate.py
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from limbeck.cli import main as limbeck

FOLDER = Path(__file__).parent / "objectives"
_NOTE = "<!-- Written by docs/generate.py from the class's docstring. Change it there. -->"


def pages() -> dict[str, str]:
    """Every page by file name."""
    names = [row["name"] for row in _ask("list", "objectives")]
    facts = {name: _ask("explain", name) for name in names}
    return {"index.md": _index(facts), **{f"{name}.md": _page(found) for name, found in facts.items()}}


def _ask(*words: str) -> Any:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = limbeck([*words, "--json"])
    if code:
        raise SystemExit(f"limbeck {' '.join(words)} ended with {code}")
    return json.loads(said.getvalue())


def _index(facts: dict[str, dict[str, Any]]) -> str:
    lines = [_NOTE, "", "# Objectives", ""]
    lines += [
        "What a student can be compared with a teacher by. Each page is made from the docstring of its class; "
        "`limbeck explain NAME` says the same in a terminal. `limbeck list objectives` is the list.",
        "",
        "| name | what | needs | batch coupled | paper |",
        "|---|---|---|---|---|",
    ]
    for name, found in facts.items():
        coupled = "yes" if found["batch_coupled"] else "no"
        lines.append(
            f"| [`{name}`]({name}.md) | {_first(found['summary'])} | {_needs(found)} | {coupled} | {_paper(found)} |"
        )
    lines += ["", "## Presets", "", "A preset is a name for an expression. A bare preset name means its expression; "]
    lines[-1] += "parentheses mean the objective alone (`icd` is `ce + icd()`; `icd()` is ICD alone)."
    presets = {row["name"]: row["expression"] for row in _ask("list", "presets")}
    return "\n".join([*lines, "", *_preset_table(presets), ""])


def _page(found: dict[str, Any]) -> str:
    also = f" Also named {', '.join(f'`{alias}`' for alias in found['aliases'])}." if found["aliases"] else ""
    lines = [_NOTE, "", f"# {found['name']}", "", _prose(found["summary"]) + also, ""]
    if found["formula"]:
        lines += ["## Formula", "", f"$${found['formula']}$$", ""]
    if found["arguments"]:
        lines += ["## Arguments", "", "| name | default | meaning |", "|---|---|---|"]
        for name, about in found["arguments"].items():
            default = "must be given" if about.get("required") else f"`{about['default']!r}`"
            lines.append(f"| `{name}` | {default} | {_cell(about['what'])} |")
        lines.append("")
    lines += ["## Needs", "", f"{_needs(found)}.", ""]
    if found["batch_coupled"]:
        lines += [
            "The loss of a sample depends on the others in its batch, so a batch is never split into micro-batches.",
            "",
        ]
    for heading, text in found["sections"].items():
        lines += [f"## {heading}", "", _prose(text), ""]
    if found["presets"]:
        lines += ["## Presets", "", *_preset_table(found["presets"]), ""]
    if found["paper"]:
        lines += ["## Paper", "", _paper(found), ""]
    return "\n".join(lines)


def _needs(found: dict[str, Any]) -> str:
    return ", ".join(found["needs"]) + ("" if found["needs_teacher"] else "; no teacher")


def _paper(found: dict[str, Any]) -> str:
    paper = found["paper"]
    if not paper:
        return ""
    title = f"[{paper['title']}]({paper['link']})" if paper["link"] else paper["title"]
    venue = f"{paper['venue']} " if paper["venue"] else ""
    return f"{title}, {venue}{paper['year']}"


def _preset_table(presets: dict[str, str]) -> list[str]:
    return ["| preset | expression |", "|---|---|", *(f"| `{name}` | `{text}` |" for name, text in presets.items())]


def _first(text: str) -> str:
    return _cell(text.partition("\n")[0])


def _cell(text: str) -> str:
    return _prose(" ".join(text.split())).replace("|", "\\|")


def _prose(text: str) -> str:
    return text.replace("``", "`").replace("<", "&lt;").replace("$", "\\$")


def main() -> None:
    """Write the pages, and remove those of objectives that are gone."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    print(f"{len(made)} pages in {FOLDER}")


if __name__ == "__main__":
    main()

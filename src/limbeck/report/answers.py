"""What language models answered to test prompts, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.report.material import Material
from limbeck.report.read import Run
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, note, table
from limbeck.runs import TEST_ANSWERS

_SHOWN, _CHARACTERS = 8, 400

Answers = dict[str, Mapping[str, str]]
"""By prompt: what was wanted, the student's answer and the teacher's."""


def answers_section(material: Material) -> list[Section]:
    """A table with a few prompts, what was wanted, and what the teacher and each method's first run answered; none without."""
    read = {method.short: found for method in material.methods if (found := _of_first(method.runs))}
    if not read:
        return []
    first = next(iter(read.values()))
    prompts = [prompt for prompt in first if all(prompt in found for found in read.values())][:_SHOWN]
    if not prompts:
        return []
    taught = [found for found in read.values() if all("teacher" in found[prompt] for prompt in prompts)]
    columns = [
        Column("prompt", "of the test split", number=False),
        Column("wanted", "the data's own answer", number=False),
    ]
    columns += [Column("teacher", "greedy answer", number=False)] * bool(taught)
    columns += [Column(label, "greedy answer of the run with the lowest seed", number=False) for label in read]
    rows = [
        [
            Cell(_short(prompt)),
            Cell(_short(first[prompt]["wanted"])),
            *([Cell(_short(taught[0][prompt]["teacher"]))] if taught else []),
            *(Cell(_short(found[prompt]["student"])) for found in read.values()),
        ]
        for prompt in prompts
    ]
    lead = "The first prompts of the test split, whatever the answers: nothing is chosen."
    remark = note(f"All answers of a run are in its {TEST_ANSWERS}.")
    return [Section("answers", "Answers to test prompts", html=table("answers", columns, rows) + remark, lead=lead)]


def _of_first(runs: Sequence[Run]) -> Answers:
    finished = {run.result.seed: run.path / TEST_ANSWERS for run in runs if run.result is not None}
    return _read(finished[min(finished)]) if finished else {}


def _read(path: Path) -> Answers:
    """What a file holds; nothing where it was cut, or is somebody else's."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: Answers = {}
    for entry in listed if isinstance(listed, list) else ():
        named = {"prompt", "wanted", "student"}
        if isinstance(entry, dict) and named <= entry.keys() and all(isinstance(entry[name], str) for name in named):
            found[entry["prompt"]] = {name: value for name, value in entry.items() if isinstance(value, str)}
    return found


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"

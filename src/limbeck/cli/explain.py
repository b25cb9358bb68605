"""``limbeck explain``: what an objective computes, what it takes, and where it is from."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from limbeck.cli.formula import readable
from limbeck.cli.output import Output
from limbeck.cli.settings import ExplainSettings
from limbeck.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from limbeck.objectives import InitialStage, Objective

Facts = dict[str, Any]


def explain(settings: ExplainSettings, output: Output) -> None:
    """Explain the objective, preset or expression that is named."""
    from limbeck.objectives.registry import aliases, objectives, presets
    from limbeck.objectives.schedules import SCHEDULES
    from limbeck.plugins import load_plugins

    if not settings.name:
        raise SettingError(
            "name an objective or a preset, as in 'limbeck explain icd'; 'limbeck list objectives' names them."
        )
    load_plugins(settings.plugins)
    name = aliases().get(settings.name, settings.name)
    if name in objectives():
        facts = _facts(name, objectives()[name])
        output.result(facts, lambda: _page(facts))
        return
    if name in SCHEDULES:
        facts = _schedule_facts(name)
        output.result(facts, lambda: _schedule_page(facts))
        return
    if name not in presets() and re.fullmatch(r"\w+", name):
        known = [*objectives(), *aliases(), *presets(), *SCHEDULES]
        raise SettingError(unknown_name("objective or preset", name, dict.fromkeys(known)))
    facts = _expression_facts(name)
    output.result(facts, lambda: _expression_page(facts))


# -- what is known -----------------------------------------------------------------------------------------------------


def _facts(name: str, cls: type[Objective]) -> Facts:
    from limbeck.objectives.registry import aliases, presets

    sections = _sections(cls.__doc__ or "")
    said = _arguments(sections.pop("Args", ""))
    defaults = cls.defaults()
    if cls.takes_objective:
        defaults = {"objective": str(cls().objective), **defaults}
    return {
        "name": name,
        "aliases": [alias for alias, target in aliases().items() if target == name],
        "summary": sections.pop("", ""),
        "formula": cls.formula,
        "formula_text": readable(cls.formula) if cls.formula else [],
        "arguments": {
            key: {"default": None if value is inspect.Parameter.empty else value, "what": said.get(key, "")}
            | ({"required": True} if value is inspect.Parameter.empty else {})
            for key, value in defaults.items()
        },
        "needs": sorted(cls.needs),
        "needs_teacher": cls.needs_teacher,
        "batch_coupled": cls.batch_coupled,
        "presets": {key: text for key, text in presets().items() if re.search(rf"\b{re.escape(name)}\b", text)},
        "paper": None if cls.paper is None else _paper(cls.paper),
        "sections": sections,
    }


def _paper(paper: Any) -> Facts:
    return {"title": paper.title, "year": paper.year, "venue": paper.venue, "link": paper.link}


def _sections(docstring: str) -> dict[str, str]:
    """The parts of a docstring by their headings; what comes before the first has the heading ''."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in inspect.cleandoc(docstring).splitlines():
        title = re.fullmatch(r"([A-Z][\w ]*):", line)
        if title:
            heading = title[1]
            found[heading] = []
        else:
            found[heading].append(line)
    return {title: inspect.cleandoc("\n" + "\n".join(lines)).strip() for title, lines in found.items()}


def _arguments(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        begins = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        elif name:
            found[name] += " " + line.strip()
    return {each: what for names, what in found.items() for each in names.split(", ")}


def _schedule_facts(name: str) -> Facts:
    from limbeck.objectives.schedules import SCHEDULES

    cls = SCHEDULES[name]
    sections = _sections(cls.__doc__ or "")
    said = _arguments(sections["Args"])
    taken = inspect.signature(cls).parameters.values()
    return {
        "name": name,
        "summary": sections[""],
        "arguments": {
            part.name: {"default": None, "what": said[part.name], "required": True}
            if part.default is inspect.Parameter.empty
            else {"default": part.default, "what": said[part.name]}
            for part in taken
        },
        "use": f"{name}({', '.join(f'{part.name}=…' for part in taken if part.default is part.empty)})*kd()",
    }


def _expression_facts(text: str) -> Facts:
    from limbeck.objectives.registry import parse_objective, presets
    from limbeck.objectives.schedules import Schedule, weight_text

    whole = parse_objective(text)
    parts = list(zip(whole.weights, whole.parts, strict=True))
    return {
        "name": text,
        "expression": presets().get(text, text),
        "needs": sorted(whole.needs),
        "batch_coupled": whole.batch_coupled,
        "stages": [_stage(stage) for _, _, part in whole.entries() if (stage := part.initial_stage()) is not None],
        "parts": [
            {
                "weight": str(weight) if isinstance(weight, Schedule) else weight,
                "weight_text": weight_text(weight),
                "expression": str(part),
                "what": _sections(part.__doc__ or "")[""].partition("\n")[0],
            }
            for weight, part in parts
        ],
    }


def _stage(stage: InitialStage) -> Facts:
    from limbeck.objectives.registry import objectives

    # The loss of a first stage that has no name in expressions tells itself by the first line of its docstring.
    told = _sections(type(stage.objective).__doc__ or "")[""].partition("\n")[0]
    named = stage.objective.name in objectives()
    what = str(stage.objective) if named else re.sub(r":\w+:`(\w+)`", r"\1", told)
    return {"what": what, "epochs": stage.epochs, "trains": list(stage.trains), "lr": stage.lr}


# -- how it is shown ---------------------------------------------------------------------------------------------------


def _page(facts: Facts) -> Group:
    title = Text(facts["name"], style="bold")
    if facts["aliases"]:
        title.append(f"  also {', '.join(facts['aliases'])}", style="dim")
    blocks: list[RenderableType] = [title, "", _prose(facts["summary"])]
    if facts["formula_text"]:
        blocks += _block("Formula", Text("\n".join(facts["formula_text"])))
    if facts["arguments"]:
        blocks += _block("Arguments", _argument_table(facts["arguments"]))
    needs = ", ".join(facts["needs"]) + ("" if facts["needs_teacher"] else "; no teacher")
    blocks += _block("Needs", Text(needs or "nothing"))
    if facts["batch_coupled"]:
        coupled = "The loss of a sample depends on the others in its batch, so a batch is not split (no accumulation)."
        blocks += _block("Batch", Text(coupled))
    for heading, text in facts["sections"].items():
        blocks += _block(heading, _prose(text))
    if facts["presets"]:
        blocks += _block("Presets", _pairs(facts["presets"]))
    if facts["paper"]:
        blocks += _block("Paper", _citation(facts["paper"]))
    return Group(*blocks)


def _schedule_page(facts: Facts) -> Group:
    kind = Text("a schedule: a weight that changes from epoch to epoch", style="dim")
    blocks: list[RenderableType] = [Text(facts["name"], style="bold"), kind, "", _prose(facts["summary"])]
    blocks += _block("Arguments", _argument_table(facts["arguments"]))
    blocks += _block("Use", Text(facts["use"]))
    return Group(*blocks)


def _expression_page(facts: Facts) -> Group:
    blocks: list[RenderableType] = [Text(facts["name"], style="bold")]
    if facts["expression"] != facts["name"]:
        blocks += ["", Text(f"stands for  {facts['expression']}")]
    rows = {f"{part['weight_text']} · {part['expression']}": part["what"] for part in facts["parts"]}
    blocks += _block("Parts", _pairs(rows))
    for stage in facts["stages"]:
        rate = "" if stage["lr"] is None else f", learning rate {stage['lr']:g}"
        told = f"{stage['epochs']} epochs: {stage['what']} (trains {' and '.join(stage['trains'])}{rate})"
        blocks += _block("First", Text(told))
    blocks += _block("Needs", Text(", ".join(facts["needs"])))
    names = sorted({part["expression"].partition("(")[0] for part in facts["parts"]})
    blocks += ["", Text(f"More: {'; '.join(f'limbeck explain {name}' for name in names)}", style="dim")]
    return Group(*blocks)


def _block(heading: str, content: RenderableType) -> list[RenderableType]:
    return ["", Text(heading, style="bold"), Padding(content, (0, 0, 0, 2), expand=False)]


def _prose(text: str) -> Text:
    """Paragraphs that fill the width, without the marks of docstrings."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return _plain("\n\n".join(paragraphs))


def _plain(text: str) -> Text:
    """Without the marks of code and emphasis; the sign between a weight and its objective stays."""
    return Text(re.sub(r"(?<!\w)\*+|\*+(?!\w)", "", text.replace("``", "")))


def _argument_table(arguments: dict[str, Facts]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, facts in arguments.items():
        given = "(must be given)" if facts.get("required") else f"= {facts['default']!r}"
        table.add_row(f"{name} {given}", _plain(facts["what"]))
    return table


def _pairs(rows: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(Text(name), Text(text))
    return table


def _citation(paper: Facts) -> Text:
    venue = f", {paper['venue']}" if paper["venue"] else ""
    text = Text(f"{paper['title']}{venue}, {paper['year']}")
    if paper["link"]:
        text.append(f"\n{paper['link']}", style=f"link {paper['link']}")
    return text

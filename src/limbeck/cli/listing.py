"""``limbeck list``: what can be named in settings."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from rich import box
from rich.table import Table

from limbeck.cli.output import Output
from limbeck.cli.settings import ListSettings
from limbeck.errors import SettingError, nearest

Row = dict[str, Any]


def list_names(settings: ListSettings, output: Output) -> None:
    """Print the list that was asked for."""
    from limbeck.plugins import load_plugins

    if settings.what is None:
        raise SettingError(f"name what to list: {', '.join(_LISTS)}; as in 'limbeck list objectives'.")
    load_plugins(settings.plugins)
    rows, remark = _LISTS[settings.what](settings.pattern)
    if not rows and settings.pattern:
        raise SettingError(_nothing(settings.what, settings.pattern))
    output.result(rows, lambda: _table(rows))
    if remark and not output.options.as_json:
        output.say(remark)


def _objectives(pattern: str | None) -> tuple[list[Row], str]:
    from limbeck.objectives.registry import aliases, objectives

    others = aliases()
    rows = [
        {
            "name": name,
            "aliases": [alias for alias, target in others.items() if target == name],
            "what": _first_sentence(cls.__doc__),
            "needs": sorted(cls.needs),
            "batch_coupled": cls.batch_coupled,
            "presets": list(cls.presets),
            "paper": cls.paper.title if cls.paper else None,
            "link": cls.paper.link if cls.paper else None,
            "year": cls.paper.year if cls.paper else None,
        }
        for name, cls in objectives().items()
        if _matches(name, pattern)
    ]
    return rows, "'limbeck explain NAME' tells its formula, arguments and paper."


def _presets(pattern: str | None) -> tuple[list[Row], str]:
    from limbeck.objectives.registry import presets

    rows = [{"name": name, "expression": text} for name, text in presets().items() if _matches(name, pattern)]
    return rows, "A preset is a name for an expression; write either after --objective."


def _models(pattern: str | None) -> tuple[list[Row], str]:
    from limbeck.models import list_models

    # Without a pattern only the zoo: the other sources have thousands, and counting them means importing them.
    entries = list_models(pattern or "zoo:*")
    rows = [
        {
            "name": entry.name if entry.source == "zoo" else f"{entry.source}:{entry.name}",
            "parameters": entry.parameters,
        }
        for entry in entries
    ]
    counted = {entry.source for entry in entries if entry.parameters is not None}
    remarks = [remark for source, remark in _COUNTED.items() if source in counted]
    if pattern is None:
        remarks.append(
            "More networks: 'limbeck list models timm:*', torchvision:* or, for text, language:*; hf:NAME and "
            "my_package.module:factory."
        )
    return rows, " ".join(remarks)


def _data(pattern: str | None) -> tuple[list[Row], str]:
    from limbeck.data.sources import list_sources

    rows = [
        {"name": e.name, "what": e.what, "classes": e.classes, "images": e.size, "download": e.download}
        for e in list_sources()
        if _matches(e.name, pattern)
    ]
    return rows, (
        "Text: a file (.jsonl, .json, .csv, .tsv, .parquet, .txt) or a folder with train.jsonl or the like, text:hf:NAME, and "
        "arithmetic(digits=2), which is generated."
    )


def _policies(pattern: str | None) -> tuple[list[Row], str]:
    import dataclasses

    from limbeck.policies import POLICIES

    rows = [
        {
            "name": name,
            "what": _first_sentence(cls.__doc__),
            "arguments": [each.name for each in dataclasses.fields(cls) if each.init and each.name not in cls.inner],
            "of": list(cls.inner),
        }
        for name, cls in POLICIES.items()
        if _matches(name, pattern)
    ]
    return rows, "Write one after --policy, as in 'speculative(top_k=25)' or 'mixed(student, fixed, share=0.5)'."


_COUNTED = {
    "zoo": "Parameters are for RGB images and 100 classes.",
    "language": "Parameters of language models are for 32,000 tokens.",
}
# Too wide for a table in a terminal; 'limbeck explain' shows them.
_ONLY_JSON = frozenset({"presets", "paper", "link"})
_LISTS: dict[str, Callable[[str | None], tuple[list[Row], str]]] = {
    "objectives": _objectives,
    "presets": _presets,
    "models": _models,
    "data": _data,
    "policies": _policies,
}


def _matches(name: str, pattern: str | None) -> bool:
    wanted = pattern or "*"
    return fnmatchcase(name, wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*")


def _nothing(what: str, pattern: str) -> str:
    names = [] if what == "models" and ":" in pattern else [row["name"] for row in _LISTS[what](None)[0]]
    guess = nearest(pattern.strip("*"), names)
    return f"no {what} match '{pattern}'{f'; did you mean {guess!r}?' if guess else '.'}"


def _first_sentence(text: str | None) -> str:
    first = (text or "").strip().splitlines()
    return first[0].rstrip(".") if first else ""


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    keys = [key for key in (rows[0] if rows else {}) if key not in _ONLY_JSON]
    columns = [key for key in keys if any(row[key] not in (None, [], "") for row in rows)]
    for key in columns:
        number = all(isinstance(row[key], int) or row[key] is None for row in rows) and key != "batch_coupled"
        table.add_column(
            key.replace("_", " "), justify="right" if number else "left", overflow="fold", no_wrap=key == "name"
        )
    for row in rows:
        table.add_row(*(_cell(row[key], key) for key in columns))
    return table


def _cell(value: Any, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) and key != "year" else str(value)

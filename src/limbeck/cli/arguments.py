"""From a settings type to options of the command line (through tyro), and from words back to settings."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from limbeck.cli.groups import GROUPS, heading, rank
from limbeck.cli.settings import OutputOptions, RecipeOptions
from limbeck.cli.verbs import Verb, load
from limbeck.config import Settings
from limbeck.errors import SettingError, nearest

_FEW = 20
_Leaf = tuple[str, Any, Any]  # as dataclasses.make_dataclass takes them
# What stands on both sides of the equals sign, and an example.
_PAIRS = {"taps": ("STUDENT=TEACHER", "layer2=blocks.3"), "columns": ("FIELD=COLUMN", "prompt=question")}
_NAMES = {"as_json": "json"}
_METAVARS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


def parse(verb: Verb, words: Sequence[str]) -> tuple[Any, OutputOptions]:
    """The settings of a verb and its output options, from the words after the verb.

    tyro matches options and writes help; every value stays text until the settings type checks it, so that a value is
    refused with the same sentence wherever it was written. Only what was given counts: a recipe fills in the rest.

    Raises:
        SettingError: an option that does not exist, a value that does not fit, or a positional one that is missing.
    """
    settings, options = settings_of(verb), options_of(verb)
    parsed, unknown = _match(verb, words)
    if unknown:
        raise _unknown(verb, unknown[0])
    flat = _flatten(parsed)
    given = {name: flat[name] for name in flat if _is_given(name, flat[name], verb, words)}
    output = options.make(_of(options, given), source="command line")
    return _settings(settings, output, _of(settings, given)), output


def _match(verb: Verb, words: Sequence[str]) -> tuple[Any, list[str]]:
    wants_help = "-h" in words or "--help" in words
    try:
        parsed, unknown = tyro.cli(
            arguments_of(verb, choices=False),
            prog=f"limbeck {verb.name}",
            description=_describe(verb),
            args=list(words),
            return_unknown_args=True,
            console_outputs=wants_help,
            # Every option brings its own help. To look for comments tyro would read the source around each.
            config=(tyro.conf.HelptextFromCommentsOff,),
        )
    except SystemExit:
        if wants_help:
            raise
        # Values are text, so all that tyro can refuse is an option without its value.
        alone = [
            word
            for word, after in zip(words, [*words[1:], "--"], strict=True)
            if after.startswith("--") and word[0] == "-"
        ]
        where = f"{' or '.join(alone)} needs" if alone else "an option needs"
        raise SettingError(f"{where} a value. 'limbeck {verb.name} --help' lists the options.") from None
    return parsed, unknown


def settings_of(verb: Verb) -> type[Settings]:
    """The settings type of a verb."""
    settings: type[Settings] = load(verb.settings)
    return settings


def options_of(verb: Verb) -> type[OutputOptions]:
    """The type of its output options."""
    return RecipeOptions if verb.recipe else OutputOptions


def arguments_of(verb: Verb, *, choices: bool) -> type[Any]:
    """A dataclass for tyro: the verb's settings under their headings, then the output options.

    ``choices`` keeps literal types as they are, for completion; otherwise they are text that the settings type checks.
    """
    fields = {**settings_of(verb).model_fields, **options_of(verb).model_fields}
    sections: dict[str, list[_Leaf]] = {title: [] for title in GROUPS}
    root: list[_Leaf] = []
    for name in sorted(fields, key=rank):
        if _on_command_line(fields[name]):
            title = None if name in verb.positional else heading(name)
            (root if title is None else sections[title]).append(_leaf(name, fields[name], verb, choices))
    if len(fields) < _FEW:  # headings would be longer than what stands under them
        root, sections = [leaf for leaves in (root, *sections.values()) for leaf in leaves], {}
    groups = [_group(title, leaves) for title, leaves in sections.items() if leaves]
    return _plain(dataclasses.make_dataclass("Arguments", [*_in_order(root, verb), *groups]))


def _in_order(leaves: list[_Leaf], verb: Verb) -> list[_Leaf]:
    order = {name: place for place, name in enumerate(verb.positional)}
    return sorted(leaves, key=lambda leaf: order.get(leaf[0], len(order)))


def _group(title: str, leaves: list[_Leaf]) -> _Leaf:
    made = _plain(dataclasses.make_dataclass(title, leaves))
    # The field has a name of its own: a setting may be called like a heading.
    return f"group_{title}", Annotated[made, tyro.conf.arg(name=title)], dataclasses.field(default_factory=made)


def _plain(made: type[Any]) -> type[Any]:
    made.__doc__ = ""  # tyro would show the signature that dataclasses write there
    return made


def _on_command_line(field: FieldInfo) -> bool:
    kinds = [field.annotation, *get_args(field.annotation)]
    return not any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def _leaf(name: str, field: FieldInfo, verb: Verb, choices: bool) -> _Leaf:
    kind, metavar = _text_type(field.annotation, choices)
    if name in _PAIRS:
        metavar = f"{_PAIRS[name][0]} ..."
    positional, several = name in verb.positional, get_origin(kind) is list
    # '--plugins a.py NAME' would swallow the name, so where there are names an option takes one value at a time.
    repeated = several and not positional and bool(verb.positional)
    if positional:
        metavar = name.upper() + " ..." * several
    markers: list[Any] = [
        tyro.conf.arg(
            name=_NAMES.get(name, name),
            prefix_name=False,
            metavar=None if kind is bool else metavar.removesuffix(" ...") if repeated else metavar,
            help=f"{field.description} Repeat the option for more." if repeated else field.description,
            help_behavior_hint=_hint(field.get_default(call_default_factory=True)),
        )
    ]
    if positional:
        markers.append(tyro.conf.Positional)
    elif name in OutputOptions.model_fields:
        markers.append(tyro.conf.FlagCreatePairsOff)  # no recipe can turn these on, so nobody needs to turn them off
    elif repeated:
        markers.append(tyro.conf.UseAppendAction)
    # None, "found by itself", is no value of a flag; what is not given is left out in the end.
    default = bool(field.get_default(call_default_factory=True)) if kind is bool else ""
    value: Any = dataclasses.field(default_factory=list) if several else dataclasses.field(default=default)
    return name, Annotated[(kind, *markers)], value


def _text_type(annotation: Any, choices: bool) -> tuple[Any, str]:
    """What tyro reads for a type, and how the value is called in help."""
    inner = _without_none(annotation)
    if inner is bool:
        return bool, ""
    if get_origin(inner) is list:
        kind, metavar = _text_type(get_args(inner)[0], choices)
        return list[kind], f"{metavar} ..."  # type: ignore[valid-type]  # a type made at run time
    if get_origin(inner) is dict:
        return list[str], "KEY=VALUE ..."
    if get_origin(inner) is Literal:
        return (inner if choices else str), "{" + ",".join(map(str, get_args(inner))) + "}"
    return str, _METAVARS.get(inner, "TEXT")


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _hint(default: Any) -> str:
    if default is None or default is False or default in ([], {}):
        return ""
    shown = "on" if default is True else " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return f"(default: {shown})"


def _describe(verb: Verb) -> str:
    # tyro puts a line between paragraphs, and would put two for an empty one.
    lines = [f"  {line}" for what, command in verb.examples for line in (f"# {what}", *command.splitlines())]
    return "\n".join([verb.help, *lines])


def _flatten(parsed: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        flat |= _flatten(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return flat


def _is_given(name: str, value: Any, verb: Verb, words: Sequence[str]) -> bool:
    if name in verb.positional:
        return bool(value)
    flag = _NAMES.get(name, name).replace("_", "-")
    used = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    return f"--{flag}" in used or f"--no-{flag}" in used


def _of(settings: type[Settings], given: dict[str, Any]) -> dict[str, Any]:
    fields = settings.model_fields
    return {name: _value(name, fields[name], given[name]) for name in given if name in fields}


def _value(name: str, field: FieldInfo, value: Any) -> Any:
    optional = type(None) in get_args(field.annotation)
    if optional and value == "none":  # takes back what a recipe says
        return None
    if get_origin(_without_none(field.annotation)) is dict:
        form, example = _PAIRS[name]
        pairs = [pair.partition("=") for pair in value]
        for key, equals, other in pairs:
            if not (key and equals and other):
                raise SettingError(f"--{name} takes {form}, as in --{name} {example}; got '{key}{equals}'.")
        return {key: other for key, _, other in pairs}
    return value


def _settings(settings: type[Settings], output: OutputOptions, given: dict[str, Any]) -> Settings:
    recipe = getattr(output, "config", None)
    before = settings.read(recipe).model_dump() if recipe is not None else {}
    if "as_json" in settings.model_fields:
        given = {**given, "as_json": output.as_json}
    return settings.make({**before, **given}, source="command line")


def _unknown(verb: Verb, word: str) -> SettingError:
    see = f"'limbeck {verb.name} --help' lists the options."
    if not word.startswith("-"):
        return SettingError(f"'{word}' is not expected there; values follow their option, as in --name VALUE. {see}")
    fields = [*settings_of(verb).model_fields, *options_of(verb).model_fields]
    flags = [f"--{_NAMES.get(name, name).replace('_', '-')}" for name in fields if name not in verb.positional]
    guess = nearest(word.partition("=")[0], flags)
    return SettingError(f"unknown option '{word}'{f'; did you mean {guess}?' if guess else '.'} {see}")

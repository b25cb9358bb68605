"""Prints a completion script, which tyro writes from the same types that make the options."""

from __future__ import annotations

import functools
import operator
from typing import Annotated, Any

import tyro

from limbeck.cli.arguments import arguments_of
from limbeck.cli.output import Output
from limbeck.cli.settings import CompletionSettings
from limbeck.cli.verbs import VERBS
from limbeck.errors import SettingError


def completion(settings: CompletionSettings, output: Output) -> None:
    """Print the script for a shell."""
    if settings.shell is None:
        raise SettingError("name a shell: bash, zsh or fish. 'limbeck completion --help' says where its script goes.")
    words = ["--tyro-write-completion", settings.shell, "-"]
    tyro.cli(
        _all_verbs(),
        prog="limbeck",
        args=words,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.HelptextFromCommentsOff),
    )


def _all_verbs() -> Any:
    verbs = [
        Annotated[arguments_of(verb, choices=True), tyro.conf.subcommand(verb.name, description=verb.help)]
        for verb in VERBS.values()
    ]
    return functools.reduce(operator.or_, verbs)

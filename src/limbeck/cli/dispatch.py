"""From a verb and its words to its handler."""

from __future__ import annotations

import os
from collections.abc import Sequence

from limbeck.cli.arguments import parse
from limbeck.cli.verbs import Verb, load


def run_verb(verb: Verb, words: Sequence[str]) -> int:
    """Parse the words, load the user's own files, call the handler. Returns the exit code."""
    settings, options = parse(verb, words)

    from limbeck.cli.output import Output  # after parsing: help needs no rich

    with Output(options) as output:
        named = os.environ.get("LIMBECK_PLUGINS", "") if verb.needs_torch else ""
        plugins = [name.strip() for name in named.split(",") if name.strip()]
        if plugins:
            from limbeck.plugins import load_plugins

            load_plugins(plugins)
        code: int | None = load(verb.handler)(settings, output)
    return code or 0

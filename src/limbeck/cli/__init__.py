"""The command line. Each verb's parser and code are imported when that verb is asked for, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from limbeck import __version__
from limbeck.cli.guard import guarded
from limbeck.cli.overview import overview, unknown_verb
from limbeck.cli.verbs import VERBS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``limbeck`` with these arguments (those of the process when None) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words), verbose="--verbose" in words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview(sys.stdout.isatty()))
        return 0
    if words[0] == "--version":
        print(f"limbeck {__version__}")
        return 0
    verb = VERBS.get(words[0])
    if verb is None:
        raise unknown_verb(words[0])

    from limbeck.cli.dispatch import run_verb

    return run_verb(verb, words[1:])

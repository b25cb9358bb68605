"""What ``limbeck`` says when no verb is named. Plain text: it must not wait for any import."""

from __future__ import annotations

from limbeck import __doc__ as what
from limbeck import __version__
from limbeck.cli.verbs import FOUR_SETTINGS, VERBS
from limbeck.errors import SettingError, nearest

_OPTIONS = (
    ("VERB --help", "options of a verb, with examples"),
    ("--version", "print the version"),
    ("LIMBECK_PLUGINS=a.py,b", "your own files and modules, for every verb (or --plugins)"),
    ("LIMBECK_DEBUG=1", "show warnings of libraries, and tracebacks (or --verbose)"),
)


def overview(color: bool) -> str:
    """The first page: what it is, the one command, the verbs."""

    def strong(text: str) -> str:
        return f"\033[1m{text}\033[0m" if color else text

    lines = [f"{strong('limbeck')} {__version__}. {what}", "", f"  {FOUR_SETTINGS}", ""]
    for section in dict.fromkeys(verb.section for verb in VERBS.values()):
        lines.append(strong(section))
        for verb in (verb for verb in VERBS.values() if verb.section == section):
            lines.append(f"  {strong(verb.name.ljust(12))}{verb.help}")
        lines.append("")
    lines.append(strong("More"))
    lines += [f"  {name.ljust(24)}{text}" for name, text in _OPTIONS]
    return "\n".join(lines)


def unknown_verb(word: str) -> SettingError:
    """The error for a first word that is no verb."""
    guess = nearest(word, VERBS)
    kind = "option" if word.startswith("-") else "verb"
    ask = f"; did you mean 'limbeck {guess}'?" if guess else "."
    return SettingError(f"unknown {kind} '{word}'{ask} Verbs: {', '.join(VERBS)}.")

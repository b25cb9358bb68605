"""Where results and remarks go: results to stdout, as a table or as JSON; remarks and progress to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

from rich.console import Console, RenderableType

from limbeck.cli.settings import OutputOptions

# Tables that are piped into another program are not cut at the width of a terminal.
_PIPED_WIDTH = 160


class Output:
    """The two streams. A context: inside it, what limbeck logs is shown on stderr."""

    def __init__(self, options: OutputOptions) -> None:
        self.options = options
        # Of several processes of one run only the first speaks.
        self.speaks = os.environ.get("RANK", "0") == "0"

    @cached_property
    def out(self) -> Console:
        """Standard output."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """Standard error."""
        return _console(sys.stderr)

    def say(self, line: str) -> None:
        """A remark for the user, on stderr."""
        if self.speaks and not self.options.quiet:
            self.err.print(line, markup=False, highlight=False, soft_wrap=True)

    def result(self, value: Any, *shown: Callable[[], RenderableType]) -> None:
        """The result: ``value`` as JSON when that was asked for, else what each of ``shown`` makes."""
        if not self.speaks:
            return
        if self.options.as_json:
            print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
            return
        for make in shown:
            self.out.print(make(), highlight=False)

    def __enter__(self) -> Output:
        self._handler = _Handler(self)
        logging.getLogger("limbeck").addHandler(self._handler)
        return self

    def __exit__(self, *exception: object) -> None:
        logging.getLogger("limbeck").removeHandler(self._handler)


class _Handler(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(level=logging.INFO if output.options.verbose else logging.WARNING)
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        self.output.say(f"{record.levelname.lower()}: {record.getMessage()}")


def _console(file: Any) -> Console:
    piped = not file.isatty() and "COLUMNS" not in os.environ
    return Console(file=file, width=_PIPED_WIDTH if piped else None)

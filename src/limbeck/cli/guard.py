"""What a user sees when something goes wrong: one sentence and an exit code, or a traceback when the fault is ours."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limbeck.errors import LimbeckError

_DISK_IS_FULL = ("No space left on device", "PytorchStreamWriter", "Disk quota exceeded")
_SIGINT, _SIGPIPE = 130, 141


def guarded(action: Callable[[], int], *, verbose: bool) -> int:
    """Run ``action`` and return the exit code; errors become text on stderr."""
    verbose = verbose or os.environ.get("LIMBECK_DEBUG", "") not in ("", "0")
    with _libraries(verbose):
        try:
            code = action()
            sys.stdout.flush()
        except SystemExit as stop:  # tyro ends its help and its own errors like this
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
        except BrokenPipeError:
            # The reader, such as 'head', has seen enough. Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _SIGPIPE
        except KeyboardInterrupt:
            return _tell("stopped.", _SIGINT, verbose)
        except LimbeckError as error:
            return _tell(str(error), error.exit_code, verbose)
        except OSError as error:
            return _tell(_os_sentence(error), 1, verbose)
        except Exception as error:
            return _unexpected(error, verbose)
        return code


@contextmanager
def _libraries(verbose: bool) -> Iterator[None]:
    """What libraries warn of is for us, not for users; inside the block it is shown only when ``verbose``."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
            os.environ.setdefault("HF_HUB_VERBOSITY", "error")
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        try:
            yield
        finally:
            root.setLevel(level)


def _tell(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print("error: " + message.replace("\n", "\n       "), file=sys.stderr)
    return code


def _os_sentence(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(error.filename)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. --verbose shows where it happened."


def _full(path: str | None) -> str:
    which = f"the disk that holds {path}" if path else "a disk"
    return (
        f"{which} is full. Free some space, or name a place on another disk; a training run then goes on with --resume."
    )


def _unexpected(error: Exception, verbose: bool) -> int:
    text = str(error)
    if any(sign in text for sign in _DISK_IS_FULL):
        return _tell(_full(None), 1, verbose)
    if type(error).__name__ == "OutOfMemoryError":
        first = text.splitlines()[0] if text else "out of memory"
        remedy = "Use a smaller --batch-size, --precision bf16 or --gradient-checkpointing."
        return _tell(f"the device's memory is full: {first} {remedy}", 1, verbose)
    traceback.print_exc()
    print(
        f"error: {type(error).__name__}: {text}\n"
        "       This is a fault in limbeck or in a plugin, not in what you asked. Please report it with the lines above,\n"
        "       the command, and what 'limbeck doctor' says.",
        file=sys.stderr,
    )
    return 1

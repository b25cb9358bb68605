"""Errors a user can act on: what is wrong, where, what is accepted, and the nearest spelling."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass


class LimbeckError(Exception):
    """Base of every error limbeck raises on purpose. ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class SettingError(LimbeckError, ValueError):
    """A setting, argument or name given by the user cannot be used."""

    exit_code = 2


class DataError(LimbeckError, ValueError):
    """A data set is missing, unreadable or does not fit what was asked of it."""

    exit_code = 2


class WeightsError(LimbeckError, ValueError):
    """A weights file does not fit the network, or is not safe to read."""

    exit_code = 2


class TapError(LimbeckError, ValueError):
    """A module path names nothing, or the module at it did not run."""

    exit_code = 2


class SignalError(LimbeckError, ValueError):
    """An objective needs a signal that the teacher, the student or the batch does not give."""

    exit_code = 2


class TeacherError(LimbeckError):
    """The teacher cannot teach: near chance, other classes, outputs not finite, its budget spent, its server silent."""

    exit_code = 2


class CacheError(LimbeckError, ValueError):
    """What was kept of a teacher is of something else, damaged, unfinished, written by another process, or has no room."""

    exit_code = 2


class RunFolderError(LimbeckError):
    """A run folder exists already, or does not belong to the run that wants to go on in it."""

    exit_code = 2


class NonFiniteError(LimbeckError):
    """A loss term became NaN or infinite in training."""


class MissingExtraError(LimbeckError, ImportError):
    """An optional dependency is not installed; the message holds the line that installs it."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}'. Install it with: pip install 'limbeck[{extra}]'")


@dataclass(frozen=True)
class Failure:
    """Why a student of a comparison ended before the others: a sentence, its step, and the time; None for what is not told."""

    reason: str
    step: int | None = None
    when: str | None = None

    def __str__(self) -> str:
        at = f"at step {self.step}" if self.step is not None else ""
        told = ", ".join(part for part in (at, self.when) if part)
        return f"{self.reason} ({told})" if told else self.reason


def nearest(value: str, accepted: Iterable[str]) -> str | None:
    """The accepted spelling closest to ``value``, or None when nothing is close."""
    by_lower = {name.lower(): name for name in accepted}
    matches = difflib.get_close_matches(value.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def unknown_name(kind: str, value: str, accepted: Iterable[str], hint: str = "") -> str:
    """The sentence for a name that is not among the accepted ones.

    >>> unknown_name("objective", "icdd", ["ce", "icd", "kd"])
    "unknown objective 'icdd'; did you mean 'icd'? Accepted: ce, icd, kd."
    """
    names = list(accepted)
    guess = nearest(value, names)
    question = f"; did you mean '{guess}'?" if guess else "."
    listed = ", ".join(names) if names else "none"
    return f"unknown {kind} '{value}'{question} Accepted: {listed}.{' ' + hint if hint else ''}"


def check_number(
    setting: str, value: object, *, low: float | None = None, high: float | None = None, open_low: bool = False
) -> None:
    """Raise SettingError unless ``value`` is a finite number within [low, high] (or (low, high] with ``open_low``)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        raise SettingError(f"{setting} must be a finite number, got {value!r}.")
    if low is not None and (value < low or (open_low and value == low)):
        raise SettingError(f"{setting} must be {'greater than' if open_low else 'at least'} {low}, got {value!r}.")
    if high is not None and value > high:
        raise SettingError(f"{setting} must be at most {high}, got {value!r}.")


def check_whole(setting: str, value: object, *, low: int) -> None:
    """Raise SettingError unless ``value`` is a whole number of at least ``low``; True and False are none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SettingError(f"{setting} must be a whole number of at least {low}, got {value!r}.")


def is_finite(value: float) -> bool:
    """Whether a number is finite as a float; a whole number beyond the range of floats is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_flag(setting: str, value: object) -> None:
    """Raise SettingError unless ``value`` is True or False; the text 'no' would otherwise count as yes."""
    if not isinstance(value, bool):
        raise SettingError(f"{setting} must be True or False, got {value!r}.")


def check_choice(setting: str, value: object, accepted: Iterable[str]) -> None:
    """Raise SettingError unless ``value`` is one of ``accepted``."""
    names = list(accepted)
    if value not in names:
        raise SettingError(f"{setting}: {unknown_name('value', str(value), names)}")

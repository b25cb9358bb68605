"""The final answer in a text, and whether it is the right one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Literal

Extract = Callable[[str], str | None]
"""From a text to its final answer, None where it has none."""
Extraction = Literal["whole", "marked", "last_number", "gsm8k"]

_MARK = "####"
# A sign belongs to a number only where no digit or letter stands before it: 5-3 ends in 3.
_NUMBER = re.compile(r"(?:(?<![\w.)])[-−])?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_FILLED_UP = re.compile(r"[-+]?0\d")


def whole(text: str) -> str | None:
    """The text without white space at its ends; None when nothing is left."""
    return text.strip() or None


def marked(text: str) -> str | None:
    """What stands after the last ``####`` on its line, as in GSM8K; None without."""
    _, mark, rest = text.rpartition(_MARK)
    return whole(rest.strip().partition("\n")[0]) if mark else None


def last_number(text: str) -> str | None:
    """The last number of the text, without thousands separators and currency; None where there is none.

    >>> last_number("She has 3 apples and $1,250.50 left.")
    '1250.50'
    """
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "").replace("$", "").replace("−", "-") if found else None


def gsm8k(text: str) -> str | None:
    """The number after ``####``, or the last number where a text lacks the mark, as models that were not trained on it do."""
    answer = marked(text)
    return last_number(text if answer is None else answer)


EXTRACTIONS: Mapping[Extraction, Extract] = {
    "whole": whole,
    "marked": marked,
    "last_number": last_number,
    "gsm8k": gsm8k,
}


def same_answer(one: str | None, other: str | None) -> bool:
    """Whether two answers are equal: as numbers where both are (42, 42.0 and 42. are one), as text otherwise.

    Digits after a zero in front (007) are text: in a sum that is written ones first, 001 is a hundred and 1 is one. None is
    equal to nothing, also not to None.
    """
    if one is None or other is None:
        return False
    numbers = [_decimal(text) for text in (one, other)]
    return one.strip() == other.strip() if None in numbers else numbers[0] == numbers[1]


def _decimal(text: str) -> Decimal | None:
    if _FILLED_UP.match(text.strip()):
        return None
    try:
        value = Decimal(text.strip().replace(",", "").replace("$", "").removesuffix("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None

"""``arithmetic``: generated problems with answers that can be checked; needs no download."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from limbeck.data.seeds import stream
from limbeck.data.text.examples import Example, TextData
from limbeck.errors import SettingError, check_whole

ALPHABET = "0123456789+-="
"""All characters of the problems and their answers."""

_MOST_DIGITS = 9
_LISTED = 2**22


def arithmetic(
    *,
    digits: int = 2,
    operations: str = "+-",
    train: int = 2000,
    val: int = 200,
    test: int = 500,
    seed: int = 0,
    backwards: bool = False,
) -> TextData:
    """Sums and differences of two whole numbers, such as ``12+7=`` with the answer ``19``, and ``7-12=`` with ``-5``.

    digits: the most digits of the numbers, 1 to 9; they are drawn uniformly from 0 to 10^digits - 1.
    operations: ``+``, ``-`` or ``+-``, in equal shares. train, val, test: problems of each split. seed: of the drawing.
    backwards: of sums only; numbers are filled up with zeros and the sum begins with its ones, as in ``07+12=910``, so that
        each digit follows from two digits and a carry, which small networks learn sooner (arXiv 2307.03381).

    No problem is in two splits or twice in one; a sum counts as the same in both orders, and is put in one of them.

    Raises:
        SettingError: a setting is out of range, or asks for more problems than there are.
    """
    check_whole("arithmetic: digits", digits, low=1)
    if digits > _MOST_DIGITS:
        raise SettingError(f"arithmetic: digits must be at most {_MOST_DIGITS}, got {digits}.")
    if operations not in ("+", "-", "+-"):
        raise SettingError(f"arithmetic: operations must be '+', '-' or '+-', got {operations!r}.")
    if type(backwards) is not bool:
        raise SettingError(f"arithmetic: backwards must be True or False, got {backwards!r}.")
    if backwards and operations != "+":
        raise SettingError(f"arithmetic: backwards is of sums, operations='+', got operations={operations!r}.")
    for name, count, low in (("train", train, 1), ("val", val, 0), ("test", test, 0), ("seed", seed, 0)):
        check_whole(f"arithmetic: {name}", count, low=low)
    problems = _problems(10**digits, operations, train + val + test, seed)
    if backwards:
        problems = [_backwards(prompt, answer, digits) for prompt, answer in problems]
    splits = [
        [Example(index, prompt, answer) for index, (prompt, answer) in enumerate(part)]
        for part in (problems[:train], problems[train : train + val], problems[train + val :])
    ]
    return TextData("arithmetic", "prompt", splits[0], splits[1] or None, splits[2] or None)


def _problems(limit: int, operations: str, count: int, seed: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for place, operation in enumerate(operations):
        share = count // len(operations) + (place < count % len(operations))
        there = limit * (limit + 1) // 2 if operation == "+" else limit * limit
        if share > there // 2:
            raise SettingError(
                f"arithmetic: {share} problems with '{operation}' are asked for, and at most {there // 2} are drawn of the "
                f"{there} that there are; ask for fewer (train, val and test together are {count}), or for more digits."
            )
        generator = stream(seed, place)
        swaps = torch.randint(2, (share,), generator=generator).tolist()
        numbers = _distinct(there, share, generator)
        found += [_problem(number, limit, operation, swap) for number, swap in zip(numbers, swaps, strict=True)]
    order = torch.randperm(count, generator=stream(seed, len(operations)))
    return [found[position] for position in order.tolist()]


def _distinct(there: int, count: int, generator: torch.Generator) -> Sequence[int]:
    """``count`` different numbers below ``there``, at most half of them."""
    if there <= _LISTED:
        numbers: list[int] = torch.randperm(there, generator=generator)[:count].tolist()
        return numbers
    seen: dict[int, None] = {}
    while len(seen) < count:
        seen |= dict.fromkeys(torch.randint(there, (count,), generator=generator).tolist())
    return list(seen)[:count]


def _problem(number: int, limit: int, operation: str, swap: int) -> tuple[str, str]:
    if operation == "-":
        one, other = divmod(number, limit)
        return f"{one}-{other}=", str(one - other)
    # The pairs with one ≤ other, counted row by row: row ``other`` begins at other (other + 1) / 2.
    other = (math.isqrt(8 * number + 1) - 1) // 2
    one = number - other * (other + 1) // 2
    one, other = (other, one) if swap else (one, other)
    return f"{one}+{other}=", str(one + other)


def _backwards(prompt: str, answer: str, digits: int) -> tuple[str, str]:
    numbers = "+".join(number.zfill(digits) for number in prompt.removesuffix("=").split("+"))
    return f"{numbers}=", answer.zfill(digits + 1)[::-1]

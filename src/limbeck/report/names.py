"""What methods are called in tables and figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from limbeck.objectives import parse_objective, presets
from limbeck.runs import Result

MethodKey = tuple[str, str, str | None, str, int | None, str]
"""Data, student, teacher, objective, epochs, variant."""

ALONE = ("ce()", "contrastive()")
"""What a student alone learns: on labels, and in search on its queries' documents."""

_ON_LABELS = re.compile(r"(ce|contrastive)\([^()]*\)")


def method_label(result: Result, as_teacher: bool = False) -> str:
    """What a method is called: its preset's name, or its expression; "student alone" where it learned from labels alone.

    >>> method_label(Result(objective="ce() + icd()", teacher="resnet32x4", ...))  # doctest: +SKIP
    'icd'
    """
    if result.teacher is None and _ON_LABELS.fullmatch(result.objective):
        who = f"{result.student} alone" if as_teacher else "student alone"
        return who if result.objective in ALONE else f"{who}, {short_expression(result.objective)}"
    return _preset_names().get(result.objective) or short_expression(result.objective)


def short_expression(expression: str) -> str:
    """An expression without empty parentheses, where that means the same.

    >>> short_expression("ce() + 0.5*icd()")
    'ce + 0.5*icd'
    """
    short = expression.replace("()", "")
    # 'icd' by itself would be the preset, which is another objective than icd().
    return expression if "".join(short.split()).lower() in presets() else short


def _preset_names() -> dict[str, str]:
    return _names_of(tuple(presets().items()))


@lru_cache(maxsize=1)
def _names_of(known: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Expression to preset name; of several names for one expression, the one that is made of its objectives' names."""
    names: dict[str, str] = {}
    for name, expression in known:
        whole = str(parse_objective(expression))
        if whole not in names or (_tells(name, whole) and not _tells(names[whole], whole)):
            names[whole] = name
    return names


def _tells(name: str, expression: str) -> bool:
    return all(f"{part}(" in expression for part in name.split("+"))


def labels_of(groups: Mapping[MethodKey, list[Result]]) -> dict[MethodKey, str]:
    """A label for each method, longer where that tells two of one data set and student apart."""
    teachers = {(key[0], key[2]) for key in groups}
    base = {
        key: method_label(group[0], as_teacher=(key[0], key[1]) in teachers) + (f" · {key[-1]}" if key[-1] else "")
        for key, group in groups.items()
    }
    # What else tells two rows of one data set and student apart is said only where it does.
    for part, text in ((4, "{} epochs"), (2, "from {}")):
        for key in list(base):
            twins = [
                k
                for k in base
                if k != key and k[:2] == key[:2] and base[k].split(" · ")[0] == base[key].split(" · ")[0]
            ]
            if any(twin[part] != key[part] for twin in twins) and key[part] is not None:
                base[key] += " · " + text.format(key[part])
    return base

"""The objectives that are known by name: ours, an installed plugin's, and a user's own file."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import keyword
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from limbeck.errors import SettingError, unknown_name
from limbeck.expression import Call, Sum, parse_sum
from limbeck.objectives.schedules import SCHEDULES, make_weight

if TYPE_CHECKING:
    from limbeck.objectives.algebra import WeightedSum
    from limbeck.objectives.base import Objective

ENTRY_POINTS = "limbeck.objectives"

_classes: dict[str, type[Objective]] = {}
_aliases: dict[str, str] = {}


def register(cls: type[Objective], name: str, aliases: Iterable[str] = ()) -> None:
    """Make ``cls`` known under ``name``. A name that another class holds already is an error."""
    for key in (name, *aliases):
        if not key.isidentifier() or keyword.iskeyword(key):
            raise SettingError(
                f"the objective name {key!r} cannot be written in an expression; use letters, digits and _."
            )
        if key in SCHEDULES:
            raise SettingError(f"the objective name '{key}' of {cls.__qualname__} is that of a schedule on weights.")
        holder = _classes.get(_aliases.get(key, key))
        if holder is not None and not _same(holder, cls):
            raise SettingError(f"the objective name '{key}' of {cls.__qualname__} is taken by {holder.__qualname__}.")
    for preset in vars(cls).get("presets", {}):
        for other in _classes.values():
            if _preset_key(preset) in map(_preset_key, other.presets) and not _same(other, cls):
                raise SettingError(f"the preset '{preset}' of {cls.__qualname__} is taken by {other.__qualname__}.")
    _classes[name] = cls
    _aliases.update(dict.fromkeys(aliases, name))


def _same(one: type, other: type) -> bool:
    # The same class met twice is a reload of its module (a notebook cell run again), not a clash.
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


@cache
def _load_all() -> None:
    import limbeck.objectives as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()


def objectives() -> dict[str, type[Objective]]:
    """Every registered objective by name, in alphabetical order."""
    _load_all()
    return dict(sorted(_classes.items()))


def aliases() -> dict[str, str]:
    """Other names of objectives: alias to name."""
    _load_all()
    return dict(_aliases)


def objective_class(name: str) -> type[Objective]:
    """The class registered under a name or alias, or SettingError with the nearest spelling."""
    known = objectives()
    name = _aliases.get(name, name)
    if name not in known:
        raise SettingError(
            unknown_name("objective", name, [*known, *_aliases], "'limbeck list objectives' tells what each is.")
        )
    return known[name]


def presets() -> dict[str, str]:
    """Named expressions of all objectives: preset name to expression."""
    return dict(sorted((name, text) for cls in objectives().values() for name, text in cls.presets.items()))


def parse_objective(text: str) -> WeightedSum:
    """The objective that a text describes: a preset's exact name, or an expression.

    A bare preset name stands for its expression (``icd`` is ``ce + icd()``, and ``kd+icd`` is ``icd+kd``); parentheses ask
    for the objective alone (``icd()``). :func:`limbeck.objectives.Objective.expression` writes an objective back as text.

    Raises:
        SettingError: the text cannot be read, or names an objective or argument that does not exist.
    """
    named = {_preset_key(name): expression for name, expression in presets().items()}
    return _make_sum(parse_sum(named.get(_preset_key(text), text), schedules=SCHEDULES))


def _preset_key(text: str) -> str:
    # The names in a preset stand in any order: kd+icd is icd+kd.
    return "+".join(sorted("".join(text.split()).lower().split("+")))


def _make_sum(tree: Sum) -> WeightedSum:
    from limbeck.objectives.algebra import WeightedSum

    total = WeightedSum([(make_weight(weight), _make(call)) for weight, call in tree.terms])
    total.check_not_empty()
    return total


def _make(call: Call) -> Objective:
    cls = objective_class(call.name)
    _check_arguments(call.name, call.arguments, cls.defaults())
    operands = _operands(cls, call)
    try:
        return cls(*operands, **call.arguments)
    except SettingError as error:
        raise SettingError(f"{call.name}: {error}") from None


def _operands(cls: type[Objective], call: Call) -> list[Objective]:
    if call.operands and not cls.takes_objective:
        raise SettingError(f"{call.name} takes no objective inside its parentheses, only arguments by name.")
    if len(call.operands) > 1:
        raise SettingError(f"{call.name} takes one objective, which may be a sum, got {len(call.operands)}.")
    return [_make(tree.terms[0][1]) if _is_one(tree) else _make_sum(tree) for tree in call.operands]


def _is_one(tree: Sum) -> bool:
    return len(tree.terms) == 1 and tree.terms[0][0] == 1.0


def _check_arguments(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for argument in given:
        if argument not in defaults:
            raise SettingError(unknown_name(f"argument of {name}", argument, defaults))
    for argument, default in defaults.items():
        if default is inspect.Parameter.empty and argument not in given:
            raise SettingError(f"{name} needs the argument '{argument}', as in {name}({argument}=…).")

"""The networks of the zoo by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from torch import nn

from limbeck.errors import SettingError

ModelFunction = Callable[..., nn.Module]
"""A function with the keyword arguments ``num_classes: int`` and ``in_channels: int = 3``, and its own if any."""

_functions: dict[str, ModelFunction] = {}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_model(function: _Function) -> _Function:
    """Make a function that builds a network known to the zoo under the function's name.

    Raises:
        SettingError: another function has the name already.
    """
    name = function.__name__
    holder = _functions.get(name)
    # The same function met twice is a reload of its module (a notebook cell run again), not a clash.
    if holder is not None and (holder.__module__, holder.__qualname__) != (function.__module__, function.__qualname__):
        raise SettingError(f"the model name '{name}' of {function.__module__} is taken by {holder.__module__}.")
    _functions[name] = function
    return function


@cache
def _load_all() -> None:
    import limbeck.models.zoo as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def zoo_models() -> dict[str, ModelFunction]:
    """Every network of the zoo by name, in the order of the files and of the functions in them."""
    _load_all()
    return dict(_functions)

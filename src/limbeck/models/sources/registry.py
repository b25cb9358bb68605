"""The model sources by name: ours and an installed plugin's."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache

from limbeck.errors import SettingError
from limbeck.models.sources.base import Source

ENTRY_POINTS = "limbeck.models"

_sources: dict[str, Source] = {}


def register_source(cls: type[Source]) -> type[Source]:
    """Make a source known under its ``name``, which a model's text begins with, as in ``timm:resnet18``.

    Raises:
        SettingError: the name is not an identifier, or another class has it.
    """
    if not cls.name.isidentifier():
        raise SettingError(f"the source name {cls.name!r} of {cls.__qualname__} may hold letters, digits and _ only.")
    holder = type(_sources[cls.name]) if cls.name in _sources else None
    # The same class met twice is a reload of its module, not a clash.
    if holder is not None and (holder.__module__, holder.__qualname__) != (cls.__module__, cls.__qualname__):
        raise SettingError(f"the source name '{cls.name}' of {cls.__qualname__} is taken by {holder.__qualname__}.")
    _sources[cls.name] = cls()
    return cls


@cache
def _load_all() -> None:
    import limbeck.models.sources as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()


def sources() -> dict[str, Source]:
    """Every source by name, in alphabetical order."""
    _load_all()
    return dict(sorted(_sources.items()))

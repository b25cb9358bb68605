"""The user's own networks: any function or class in any importable module."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from limbeck.errors import SettingError, nearest, unknown_name
from limbeck.models.sources.base import (
    Built,
    BuiltLanguage,
    LanguageRequest,
    Request,
    Source,
    check_arguments,
    no_published_weights,
)
from limbeck.models.sources.registry import register_source, sources


@register_source
class FactorySource(Source):
    """``my_package.nets:make_net(width=3)``: also with ``module:`` before it.

    ``num_classes``, ``in_channels`` and ``image_size`` (for text: ``task``, ``vocabulary``, ``num_classes`` and ``context``)
    are passed when the factory has parameters of these names. The current directory is importable.
    """

    name = "module"

    def build(self, request: Request) -> Built:
        if request.pretrained:
            raise no_published_weights(request.name)
        offered = {
            "num_classes": request.num_classes,
            "in_channels": request.in_channels,
            "image_size": request.image_size,
        }
        return Built(_made(request.name, request.arguments, offered))

    def build_language(self, request: LanguageRequest) -> BuiltLanguage:
        if request.published:
            raise no_published_weights(request.name)
        offered = {
            "task": request.task,
            "vocabulary": request.vocabulary,
            "num_classes": request.num_classes,
            "context": request.context,
        }
        return BuiltLanguage(_made(request.name, request.arguments, offered))


def _made(name: str, arguments: Mapping[str, Any], offered: Mapping[str, Any]) -> nn.Module:
    module_name, _, factory_name = name.partition(":")
    factory = _factory(_module(module_name), factory_name)
    parameters = inspect.signature(factory).parameters
    known = {key: value for key, value in offered.items() if key in parameters and value is not None}
    given = {**known, **arguments}
    check_arguments(name, factory, given)
    network = factory(**given)
    if not isinstance(network, nn.Module):
        raise SettingError(f"{name} returned a {type(network).__name__}; expected a torch.nn.Module.")
    return network


def _module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise SettingError(f"'{name}' is neither a model source ({', '.join(sources())}) nor the name of a module.")
    here = str(Path.cwd())
    # Last, so that a file here does not hide an installed package; kept, since a factory may import as it runs.
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise SettingError(f"the module '{name}' could not be imported: {error}.") from error
    guess = nearest(name, sources())
    raise SettingError(
        f"'{name}' is neither a model source{f' (did you mean {guess!r}?)' if guess else ''} nor an importable module. "
        f"Sources: {', '.join(sources())}. Modules are looked for in {here} and in the environment."
    )


def _factory(module: ModuleType, name: str) -> Callable[..., Any]:
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    factory = getattr(module, name, None)
    if not callable(factory):
        raise SettingError(unknown_name(f"factory in {module.__name__}", name, public))
    return factory  # type: ignore[no-any-return]  # a stranger's, of any type

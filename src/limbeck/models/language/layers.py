"""Students made from their teacher: a language model that keeps only some of its layers."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from limbeck.errors import SettingError

_NOT_BY_NATURE = ("layer_idx", "training")
_NOT_BY_LAYER = ("architectures", "_ids", "_id", "_idx", "_idxs")


def layers_of(network: nn.Module) -> nn.ModuleList:
    """The list of a transformer's layers: the one list of modules that has as many as its configuration says.

    Raises:
        SettingError: there is none, or more than one.
    """
    layers = network.get_submodule(_layers_path(network))
    assert isinstance(layers, nn.ModuleList)
    return layers


def keep_layers(network: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A copy of a transformer that has only these of its layers, in their order; the network itself stays as it is.

    The configuration says so too (its number of layers, and what it says of each layer), and the layers' places in a cache of
    keys and values are renumbered, so that text can be generated and the copy can be written and read again. What is not a
    layer (embeddings, the last norm, the output) is copied whole. DistilBERT (arXiv 1910.01108, section 3) starts from
    every other layer of its teacher in this way.

    Args:
        network: a decoder or an encoder of transformers.
        layers: indices from 0, ascending, each once; a negative one is an error.

    Raises:
        SettingError: an index that cannot be used, a network without one list of layers, or one whose layers differ by
            their place in a way that its configuration cannot say.
    """
    kept = check_places(layers)
    path = _layers_path(network)
    every = layers_of(network)
    _check_inside(kept, len(every), type(network).__name__)
    # What is left out is not copied: copying a large network whole would need its memory twice.
    memo: dict[int, Any] = {id(layer): nn.Identity() for place, layer in enumerate(every) if place not in kept}
    student = copy.deepcopy(network, memo)
    inside = student.get_submodule(path)
    assert isinstance(inside, nn.ModuleList)
    chosen = nn.ModuleList(inside[place] for place in kept)
    for place, layer in enumerate(chosen):
        _renumber(layer, place)
    parent, _, name = path.rpartition(".")
    setattr(student.get_submodule(parent), name, chosen)
    _shorten(student.config, kept, len(every))
    _check_says_so(student, every)
    return student


def check_places(layers: object) -> list[int]:
    """The layers to keep, or SettingError unless they are indices from 0, ascending, each once."""
    given: list[object] = list(layers) if isinstance(layers, list | tuple) else []
    kept = [place for place in given if isinstance(place, int) and not isinstance(place, bool) and place >= 0]
    if not given or len(kept) < len(given):
        raise SettingError(f"layers to keep must be whole numbers from 0, as in [0, 4, 8], got {layers!r}.")
    if any(place <= before for before, place in pairwise(kept)):
        raise SettingError(f"layers to keep must ascend, each once, got {kept}.")
    return kept


def _layers_path(network: nn.Module) -> str:
    config: Any = getattr(network, "config", None)
    count = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    name = type(network).__name__
    if count is None:
        raise SettingError(f"{name} does not say how many layers it has; layers are kept of transformers' networks.")
    lists = {path: module for path, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    found: list[str] = [path for path, module in lists.items() if len(module) == count and _attends(module)]
    if len(found) != 1:
        seen = ", ".join(found) or "none"
        raise SettingError(f"{name} should have one list of its {count} layers of attention; found: {seen}.")
    return found[0]


def _attends(layers: nn.ModuleList) -> bool:
    names = (name for layer in layers for name, _ in layer.named_children())
    # A list inside of a layer (heads, experts) may be as long as that of the layers.
    return any("att" in name.lower() or "mixer" in name for name in names)


def _check_inside(kept: Sequence[int], count: int, name: str) -> None:
    outside = [place for place in kept if place >= count]
    if outside:
        raise SettingError(f"{name} has the layers 0 to {count - 1}, and {outside[0]} is to be kept.")


def _renumber(layer: nn.Module, place: int) -> None:
    for module in layer.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            module.layer_idx = place  # type: ignore[assignment]  # no tensor: a place in the cache


def _shorten(config: Any, kept: Sequence[int], count: int) -> None:
    text = config.get_text_config()
    for name, value in text.to_dict().items():
        if isinstance(value, list | tuple) and len(value) == count and not name.endswith(_NOT_BY_LAYER):
            setattr(text, name, [value[place] for place in kept])
    text.num_hidden_layers = len(kept)


def _check_says_so(student: nn.Module, whole: nn.ModuleList) -> None:
    """Raise unless the configuration alone makes the very shapes of the student, and what else differs by layer."""
    with torch.device("meta"):
        again = type(student)(copy.deepcopy(student.config))
    by_layer = [_values(layer) for layer in whole]
    differ = {name for values in by_layer for name in values if any(v.get(name) != values[name] for v in by_layer)}
    ours, theirs = (_shapes_and(network, differ) for network in (student, again))
    if ours != theirs:
        differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise SettingError(
            f"the layers of {type(student).__name__} differ by their place, and its configuration cannot say so for the "
            f"ones to keep: {', '.join(differing[:4])} would not fit. Keep others."
        )


def _shapes_and(network: nn.Module, names: Collection[str]) -> dict[str, object]:
    shapes = {name: weights.shape for name, weights in network.state_dict().items()}
    layers = ((place, _values(layer)) for place, layer in enumerate(layers_of(network)))
    return shapes | {f"{place}.{name}": values[name] for place, values in layers for name in names if name in values}


def _values(layer: nn.Module) -> dict[str, object]:
    """Plain values that a layer's modules hold beside their weights, such as a scale or the kind of attention, by path."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in layer.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not name.startswith("_") and name not in _NOT_BY_NATURE
    }

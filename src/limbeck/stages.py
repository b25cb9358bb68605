"""Where a network's stages end: the layers whose feature maps distillation compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, TapError
from limbeck.taps import as_map, evaluating, first_tensor, module_at, pooled

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish)
_SHORTCUTS = {"downsample", "shortcut"}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_CONVOLUTIONS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class StageTaps:
    """The layers of a network whose outputs are its stages, from shallow to deep.

    A path is a module's dotted path, and stands for its output; with ``:input`` after it, for its input. A network of the
    zoo, or a user's own, declares them as its attribute ``stage_taps``.

    stages: the ends of the stages.
    preactivations: the same maps before their last ReLU; empty when the maps have no such form of their own.
    stem: the end of the first convolution, before any stage.

    Raises:
        SettingError: there are pre-activations, and not as many as stages.
    """

    stages: tuple[str, ...]
    preactivations: tuple[str, ...] = ()
    stem: str | None = None

    def __post_init__(self) -> None:
        if len(self.preactivations) not in (0, len(self.stages)):
            raise SettingError(
                f"stage_taps: there are {len(self.stages)} stages and {len(self.preactivations)} preactivations; give one "
                "for each stage, or none."
            )


@dataclass(frozen=True)
class Stages:
    """The stages of a network as one run of it shows them.

    paths: the ends of the stages, from shallow to deep. preactivations: for each stage the path of its map before the last
    ReLU, the stage's own path where there is none. norms: for each stage the path of the last batch norm before that map.
    shapes: (channels, height, width) of each stage. stem: see :class:`StageTaps`.
    """

    paths: tuple[str, ...] = ()
    preactivations: tuple[str, ...] = ()
    norms: tuple[str | None, ...] = ()
    shapes: tuple[tuple[int, int, int], ...] = ()
    stem: str | None = None


@dataclass(frozen=True)
class _Call:
    path: str
    module: nn.Module
    given: Tensor | None
    answered: Tensor
    map: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        """Whether a later layer worked in place on the answer, which can then not be tapped."""
        return self.answered._version != self.version


def find_stages(network: nn.Module, *inputs: Any) -> Stages:
    """The stages of a network: as it declares them, as timm's ``feature_info`` lists them, else as its run shows them.

    The network runs once in eval mode. Where nothing is declared, a stage is all that has one spatial size: its end is the
    last module that answers with a map of that size, a whole block and not a layer in one, and stages of one position are
    left out. A single convolution before a stage of several is the stem. A transformer of torchvision whose maps all have
    one size has one stage by this rule: name its layers with taps.
    """
    calls = _calls(network, *inputs)
    last = {call.path: (number, call) for number, call in enumerate(calls)}
    declared = getattr(network, "stage_taps", None)
    if not isinstance(declared, StageTaps):
        # Not every layer that timm lists runs, or answers with a map, in every network.
        listed = [path for path in _listed_by_timm(network) if path in last and _area(last[path][1].map) > 1]
        stem, found = _without_stem(listed or _by_size(network, last), calls)
        declared = StageTaps(tuple(found), stem=stem)
    for path in (*declared.stages, *declared.preactivations, *([declared.stem] if declared.stem else [])):
        if path.removesuffix(":input") not in last:
            module_at(network, path.removesuffix(":input"))
            raise TapError(f"stage_taps: '{path}' of {type(network).__name__} does not run, or answers with no map.")
    paths = declared.stages
    preactivations = declared.preactivations or tuple(_before_activation(path, last, calls) for path in paths)
    return Stages(
        paths,
        preactivations,
        tuple(_norm_before(path, last, calls) for path in preactivations),
        tuple(_shape(last[path][1].map) for path in paths),
        declared.stem,
    )


def find_preactivation(network: nn.Module, path: str, *inputs: Any) -> str:
    """The path of a map before the activation that ends in it; the path itself where it ends in none, or is an input."""
    calls = _calls(network, *inputs)
    last = {call.path: (number, call) for number, call in enumerate(calls)}
    return _before_activation(path, last, calls) if path in last else path


def find_embedding_map(network: nn.Module, classifier: str, *inputs: Any) -> str | None:
    """The path of the last map whose mean over the positions is the classifier's input; None where there is none."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: Any) -> None:
        tensor = first_tensor(given)
        if tensor is not None:
            seen.append(pooled(tensor))

    handle = module_at(network, classifier).register_forward_pre_hook(note)
    try:
        calls = _calls(network, *inputs)
    finally:
        handle.remove()
    for call in reversed(calls):
        if not seen or call.overwritten or call.map.shape[:2] != seen[-1].shape or _area(call.map) == 1:
            continue
        if torch.allclose(call.map.mean(dim=(2, 3)), seen[-1], rtol=1e-4, atol=1e-5):
            return call.path
    return None


def _calls(network: nn.Module, *inputs: Any) -> list[_Call]:
    """Every call of a module that answers with a map, in the order in which they end."""
    calls: list[_Call] = []
    handles = [module.register_forward_hook(_Note(network, path, calls)) for path, module in network.named_modules()]
    try:
        with evaluating(network), torch.no_grad():
            network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


class _Note:
    def __init__(self, network: nn.Module, path: str, calls: list[_Call]) -> None:
        self.network, self.path, self.calls = network, path, calls

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        answered = first_tensor(output)
        given = first_tensor(inputs)
        found = None if answered is None else as_map(answered, self.network)
        if answered is not None and found is not None:
            before = None if given is None else as_map(given, self.network)
            self.calls.append(_Call(self.path, module, before, answered, found, answered._version))


def _shape(value: Tensor) -> tuple[int, int, int]:
    return value.shape[1], value.shape[2], value.shape[3]


def _listed_by_timm(network: nn.Module) -> list[str]:
    listed = getattr(network, "feature_info", None)
    entries = listed if isinstance(listed, Sequence) else getattr(listed, "info", ())
    return [entry["module"] for entry in entries if isinstance(entry, Mapping) and entry.get("module")]


def _by_size(network: nn.Module, last: Mapping[str, tuple[int, _Call]]) -> list[str]:
    ends: dict[int, str] = {}
    smallest = math.inf
    for _, call in sorted(_units(network, "", last), key=lambda numbered: numbered[0]):
        # An output that is larger than one before it is no stage on the way to the classifier, and one position is no map.
        if 1 < _area(call.map) <= smallest:
            smallest = _area(call.map)
            ends[smallest] = call.path
    return list(ends.values())


def _units(network: nn.Module, path: str, last: Mapping[str, tuple[int, _Call]]) -> list[tuple[int, _Call]]:
    """The outermost modules that answer with a map and make no size of their own between that of their input and it."""
    if path in last and not _has_stages_inside(path, last):
        return [] if last[path][1].overwritten else [last[path]]
    children = module_at(network, path).named_children()
    return [unit for name, _ in children for unit in _units(network, f"{path}.{name}".removeprefix("."), last)]


def _has_stages_inside(path: str, last: Mapping[str, tuple[int, _Call]]) -> bool:
    call = last[path][1]
    given = math.inf if call.given is None else _area(call.given)
    inside = (other.map for name, (_, other) in last.items() if not path or name.startswith(f"{path}."))
    return any(_area(call.map) < _area(each) < given for each in inside)


def _area(value: Tensor) -> int:
    return value.shape[2] * value.shape[3]


def _without_stem(paths: Sequence[str], calls: Sequence[_Call]) -> tuple[str | None, list[str]]:
    """A stem is one convolution before a stage of several; where the next stage has one too, none can be told apart."""
    ends = {call.path: number for number, call in enumerate(calls)}
    convolutions = [number for number, call in enumerate(calls) if isinstance(call.module, nn.Conv2d)]
    if len(paths) > 1:
        first, second = (sum(number <= ends[path] for number in convolutions) for path in paths[:2])
        if first == 1 and second - first > 1:
            return paths[0], list(paths[1:])
    return None, list(paths)


def _before_activation(path: str, last: Mapping[str, tuple[int, _Call]], calls: Sequence[_Call]) -> str:
    number, end = last[path]
    for at in range(number, -1, -1):
        call = calls[at]
        if not isinstance(call.module, _ACTIVATIONS):
            continue
        same = call.answered.data_ptr() == end.answered.data_ptr() and call.answered.shape == end.answered.shape
        return f"{call.path}:input" if same and last[call.path][0] == at else path
    return path


def _norm_before(path: str, last: Mapping[str, tuple[int, _Call]], calls: Sequence[_Call]) -> str | None:
    """The last batch norm of as many channels before a map; None when a convolution comes between the two."""
    module_path = path.removesuffix(":input")
    if module_path not in last:
        return None
    parent = module_path.rpartition(".")[0]
    if parent in last and isinstance(last[parent][1].module, _NORMS):
        return parent  # timm's norms hold their activation
    number, call = last[module_path]
    before = list(enumerate(calls[: number + 1]))
    norms = {
        earlier.path: at
        for at, earlier in reversed(before)
        if isinstance(earlier.module, _NORMS)
        and earlier.module.affine
        and earlier.module.num_features == call.map.shape[1]
    }
    # What runs after the norm and before the map makes other values of it; the activation itself, last here, is behind the map.
    others = (*_CONVOLUTIONS, *_ACTIVATIONS)
    changed = max((at for at, earlier in before[:-1] if isinstance(earlier.module, others)), default=-1)
    if not norms or max(norms.values()) < changed:
        return None
    # In a residual block the norm of the shortcut may run last; the block's own is inside it too, or beside its activation.
    inside = [norm for norm in norms if norm.startswith(f"{parent}.") or not parent]
    main = [norm for norm in inside if not _SHORTCUTS & set(norm.split("."))]
    return next(iter([*main, *norms]))

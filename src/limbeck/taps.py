"""Reads Signals off any network by module path, without touching the network's code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck.errors import TapError, nearest
from limbeck.signals import Signals

_EMBEDDING = "embedding"
_INPUT = ":input"
_GROUPS = ("features", "preactivations", "stem", "embedding_map", "trunk")
_Record = tuple[Tensor, int | None]


class Tapped(nn.Module):
    """A network whose forward returns :class:`Signals`.

    The hooks are registered once, here, so that they are in place before the first compiled call (a hook added later is
    ignored by ``torch.compile``); wrap this module in DDP or compile it, never the network inside. Every tap is checked
    to have fired in each call. A module that runs several times in a forward is recorded at its last run.

    Args:
        network: any module; its output is a (B, C) tensor, an object or mapping with ``logits``, or a tuple that begins
            with the logits.
        features: module paths to record, or a mapping from the name under which to record to the path. ``PATH:input`` is
            the input of a module, such as the map before a ReLU.
        classifier: path of the module whose input is the embedding; see :func:`find_classifier`. None records none.

    Raises:
        TapError: a path that names no module (with near matches), a tap that did not fire, or one whose value a later
            layer overwrote in place.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        features: Mapping[str, str] | Sequence[str] = (),
        classifier: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier
        self._recorded: dict[str, _Record] = {}
        self._handles: list[RemovableHandle] = []
        self._made_out_of_place: list[nn.Module] = []
        self.paths: dict[str, dict[str, str]] = {group: {} for group in _GROUPS}
        for name, path in (features if isinstance(features, Mapping) else {path: path for path in features}).items():
            self.record("features", name, path)
        if classifier is not None:
            self._hook(_EMBEDDING, classifier, of_input=True)

    def record(self, group: str, name: str, path: str) -> None:
        """Record one more map from now on; not once the module is compiled. What is recorded already stays as it is.

        Args:
            group: the field of the signals: "features", "preactivations", "stem", "embedding_map" or "trunk".
            name: the name under which it is recorded there; for the last three the field's own name.
            path: a module's path for its output, or ``PATH:input`` for its input.
        """
        if self.paths[group].get(name) != path:
            self._hook(f"{group}:{name}", path.removesuffix(_INPUT), of_input=path.endswith(_INPUT))
            self.paths[group][name] = path

    def _hook(self, key: str, path: str, *, of_input: bool) -> None:
        module = module_at(self.network, path)
        if of_input:
            if getattr(module, "inplace", False) and key != _EMBEDDING:
                # It would overwrite what is recorded; the same numbers come out of it out of place.
                setattr(module, "inplace", False)  # noqa: B010
                self._made_out_of_place.append(module)
            self._handles.append(module.register_forward_pre_hook(_RecordInput(self._recorded, key)))
        else:
            self._handles.append(module.register_forward_hook(_RecordOutput(self._recorded, key)))

    def forward(self, *inputs: Any, **keywords: Any) -> Signals:
        self._recorded.clear()
        logits = logits_of(self.network(*inputs, **keywords))
        return self._said(logits, pooled, partial(as_map, network=self.network))

    def _said(
        self, logits: Tensor, pool: Callable[[Tensor], Tensor], form: Callable[[Tensor], Tensor | None]
    ) -> Signals:
        """What was recorded, the embedding pooled and each map brought into its ``form`` where that gives any."""
        embedding = self._take(_EMBEDDING, self.classifier) if self.classifier is not None else None
        maps = {
            group: {name: self._map(f"{group}:{name}", path, form) for name, path in paths.items()}
            for group, paths in self.paths.items()
        }
        return Signals(
            logits=logits,
            embedding=None if embedding is None else pool(embedding),
            features=maps["features"],
            preactivations=maps["preactivations"],
            stem=maps["stem"].get("stem"),
            embedding_map=maps["embedding_map"].get("embedding_map"),
            trunk=maps["trunk"].get("trunk"),
        )

    def close(self) -> None:
        """Take the hooks off the network, which is then as it was given; this module's own forward finds no taps then."""
        for handle in self._handles:
            handle.remove()
        for module in self._made_out_of_place:
            setattr(module, "inplace", True)  # noqa: B010  (torch types every attribute as a tensor or module)
        self._handles.clear()
        self._made_out_of_place.clear()
        self._recorded.clear()

    def _map(self, key: str, path: str, form: Callable[[Tensor], Tensor | None]) -> Tensor:
        value = self._take(key, path)
        found = form(value)
        return value if found is None else found

    def _take(self, key: str, path: str) -> Tensor:
        if key not in self._recorded:
            raise TapError(
                f"the module '{path}' did not run in this forward pass, so nothing was tapped there; "
                "name a module that runs for every input."
            )
        value, version = self._recorded.pop(key)
        if version is not None and version != value._version:
            raise TapError(
                f"what was tapped at '{path}' was overwritten in place by a later layer; tap that layer's output, or its "
                f"'{_INPUT}', instead."
            )
        return value


def as_map(value: Tensor, network: nn.Module) -> Tensor | None:
    """(B, C, H, W) from such a map, from one in (B, H, W, C) order, or from (B, N, C) tokens; None for the rest.

    The second order is known of timm's networks that say so and of torchvision's Swin transformers.

    Tokens are laid out in a square; the fewest tokens that must be left out for that, at the front, are those of the class
    and the like.
    """
    if value.ndim == 4:
        return value.permute(0, 3, 1, 2) if _has_channels_last(value, network) else value
    if value.ndim == 3 and value.shape[1] > 1:
        side = math.isqrt(value.shape[1])
        return value[:, -side * side :].transpose(1, 2).reshape(len(value), value.shape[2], side, side)
    return None


def _has_channels_last(value: Tensor, network: nn.Module) -> bool:
    if type(network).__module__ == "torchvision.models.swin_transformer":
        # Its first convolution and its last layers have channels first.
        return value.shape[2] != value.shape[3]
    return getattr(network, "output_fmt", None) == "NHWC"


class _RecordOutput:
    # A class and not a closure: a deep copy of the tapped network then records into its own copy of the dictionary.
    def __init__(self, recorded: dict[str, _Record], key: str) -> None:
        self.recorded, self.key = recorded, key

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.recorded[self.key] = _record(output)


class _RecordInput:
    def __init__(self, recorded: dict[str, _Record], key: str) -> None:
        self.recorded, self.key = recorded, key

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.recorded[self.key] = _record(inputs)


def _record(value: Any) -> _Record:
    tensor = first_tensor(value)
    if tensor is None:
        raise TapError("a tapped module handles no tensor; name a module inside or around it.")
    # The probe runs uncompiled and tells of overwriting; a compiled graph keeps values and has no versions.
    known = not torch.compiler.is_compiling() and not tensor.is_inference()
    return tensor, tensor._version if known else None


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or mapping."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value
    for item in items if isinstance(items, Iterable) else ():
        if isinstance(item, Tensor):
            return item
    return None


def logits_of(output: Any) -> Tensor:
    """The logits in a network's output: a tensor, ``.logits``, ``["logits"]``, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if logits is None and isinstance(output, tuple | list) and output:
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise TapError(
            f"the network returned {type(output).__name__}; expected a tensor of logits, an object or mapping with "
            "'logits', or a tuple that begins with them."
        )
    return logits


def pooled(tensor: Tensor) -> Tensor:
    """(B, D) from (B, D) or from a map (B, D, H, W) by its spatial mean, as for 1×1-convolution classifiers."""
    if tensor.ndim == 4:
        return tensor.mean(dim=(2, 3))
    if tensor.ndim != 2:
        raise TapError(f"the classifier's input has shape {tuple(tensor.shape)}; expected (B, D) or (B, D, H, W).")
    return tensor


def module_at(network: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path ("" is the network itself), or TapError with the nearest path that exists."""
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if path in modules:
        return modules[path]
    guess = nearest(path, [name for name in modules if name])
    parent = path
    while parent and parent not in modules:
        parent = parent.rpartition(".")[0]
    children = [name for name, _ in modules[parent].named_children()]
    raise TapError(
        f"{type(network).__name__} has no module '{path}'"
        + (f"; did you mean '{guess}'?" if guess else ".")
        + f" Under '{parent or '(the network)'}' are: {', '.join(children[:20]) or 'none'}."
        + " 'limbeck inspect MODEL' draws the whole tree."
    )


def find_classifier(network: nn.Module, *inputs: Any) -> str:
    """Path of the layer that makes the logits; its input is the embedding.

    The network runs once in eval mode. The layer is the linear layer or 1×1 convolution whose output *is* the logits (the
    same memory, so a flatten or squeeze after it does not matter), else the last linear layer that ran if it is the only
    one with as many outputs as there are classes.

    Raises:
        TapError: no such layer, or several; the message lists the candidates.
    """
    outputs: list[tuple[str, Tensor]] = []
    handles = [
        module.register_forward_hook(_Collect(outputs, path))
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        with evaluating(network), torch.no_grad():
            logits = logits_of(network(*inputs))
    finally:
        for handle in handles:
            handle.remove()
    for path, output in reversed(outputs):
        if output.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr():
            return path
    classes = logits.shape[-1]
    candidates = [
        path for path, output in outputs if output.numel() == len(output) * classes and len(output) == len(logits)
    ]
    if len(candidates) == 1 and outputs[-1][0] == candidates[0]:
        return candidates[0]
    named = dict.fromkeys(path for path, output in outputs if output.shape[1 if output.ndim == 4 else -1] == classes)
    raise TapError(
        f"cannot tell which layer of {type(network).__name__} is the classifier: "
        + (f"candidates are {', '.join(named)}." if named else f"no layer has {classes} outputs.")
        + " Name it with student_classifier or teacher_classifier (its input is the embedding)."
    )


class _Collect:
    def __init__(self, outputs: list[tuple[str, Tensor]], path: str) -> None:
        self.outputs, self.path = outputs, path

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        # Kept alive until the end of the pass: freed memory could be reused by the logits and look like a match.
        self.outputs.append((self.path, output))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; each module's own mode is restored after it."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

"""Reads Signals off any network by module path, without touching the network's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck.errors import TapError, nearest
from limbeck.signals import Signals

_EMBEDDING = "embedding"


class Tapped(nn.Module):
    """A network whose forward returns :class:`Signals`.

    The hooks are registered once, here, so that they are in place before the first compiled call (a hook added later is
    ignored by ``torch.compile``); wrap this module in DDP or compile it, never the network inside. Every tap is checked
    to have fired in each call. A module that runs several times in a forward is recorded at its last run.

    Args:
        network: any module; its output is a (B, C) tensor, an object or mapping with ``logits``, or a tuple that begins
            with the logits.
        features: module paths to record, or a mapping from the name under which to record to the path.
        classifier: path of the module whose input is the embedding; see :func:`find_classifier`. None records none.

    Raises:
        TapError: a path that names no module (with near matches), or a tap that did not fire.
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
        paths = dict(features) if isinstance(features, Mapping) else {path: path for path in features}
        self.feature_paths = paths
        self._recorded: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name, path in paths.items():
            record = _RecordOutput(self._recorded, "feature:" + name)
            self._handles.append(module_at(network, path).register_forward_hook(record))
        if classifier is not None:
            record_input = _RecordInput(self._recorded, _EMBEDDING)
            self._handles.append(module_at(network, classifier).register_forward_pre_hook(record_input))

    def forward(self, *inputs: Any, **keywords: Any) -> Signals:
        self._recorded.clear()
        logits = logits_of(self.network(*inputs, **keywords))
        embedding = self._take(_EMBEDDING, self.classifier) if self.classifier is not None else None
        features = {name: self._take("feature:" + name, path) for name, path in self.feature_paths.items()}
        return Signals(logits=logits, embedding=None if embedding is None else pooled(embedding), features=features)

    def close(self) -> None:
        """Take the hooks off the network, which is then as it was given; this module's own forward finds no taps then."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._recorded.clear()

    def _take(self, key: str, path: str) -> Tensor:
        if key not in self._recorded:
            raise TapError(
                f"the module '{path}' did not run in this forward pass, so nothing was tapped there; "
                "name a module that runs for every input."
            )
        return self._recorded.pop(key)


class _RecordOutput:
    # A class and not a closure: a deep copy of the tapped network then records into its own copy of the dictionary.
    def __init__(self, recorded: dict[str, Tensor], key: str) -> None:
        self.recorded, self.key = recorded, key

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.recorded[self.key] = _first_tensor(output)


class _RecordInput:
    def __init__(self, recorded: dict[str, Tensor], key: str) -> None:
        self.recorded, self.key = recorded, key

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.recorded[self.key] = _first_tensor(inputs)


def _first_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value
    for item in items if isinstance(items, Iterable) else ():
        if isinstance(item, Tensor):
            return item
    raise TapError("a tapped module handles no tensor; name a module inside or around it.")


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

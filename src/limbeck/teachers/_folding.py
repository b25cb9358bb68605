"""Batch norms folded into the layers before them, in networks that only run forward."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.taps import evaluating

TOLERANCE = 1e-4

# Exactly these types: a subclass may make its weights, or go on after the norm, in its own forward.
_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_Layer = nn.Conv2d | nn.Linear
_Norm = nn.BatchNorm1d | nn.BatchNorm2d
M = TypeVar("M", bound=nn.Module)


def fold_batch_norms(network: M, example: Tensor, *, say: Callable[[str], None] = lambda line: None) -> M:
    """A copy for inference in which batch norms are part of the convolutions and linear layers before them.

    A norm is folded where a pass over ``example`` shows that it runs once, in eval mode with running statistics, on the output
    of a convolution or linear layer that runs once, and that nothing else reads that output: no other operation, no hook, no
    caller. ``nn.Identity`` takes the norm's place and its hooks, so that module paths and taps stay. All that the
    copy returns for ``example`` (of a :class:`~limbeck.taps.Tapped` network: all its signals) is compared with what the network
    returns; if it differs by more than 0.0001 of the largest magnitude of that output, or anything fails, the network itself is
    returned. The copy is right in eval mode alone. The network that is given is not changed.

    Args:
        network: any module that takes one tensor, and whose path through its layers does not depend on the values in it.
        example: a few rows of its input.
        say: is told in one line what was done, or why nothing was.
    """
    device = example.device.type
    try:
        folded = copy.deepcopy(network).eval()
        # Rounding to half precision would hide a wrong copy behind a wide tolerance.
        with evaluating(network), torch.no_grad(), torch.autocast(device, enabled=False):
            pairs = _foldable(folded, example)
            for layer, norm in pairs:
                _fold(folded, layer, norm)
            off = difference(folded(example), network(example)) if pairs else 0.0
    except Exception as error:  # whatever a user's network does in a copy, the network itself still serves
        say(f"batch norms are not folded: {type(error).__name__}: {first_line(error)}")
        return network
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if not pairs:
        say(f"batch norms are not folded: none of {norms} follows a convolution or linear layer alone.")
        return network
    if not off <= TOLERANCE:
        say(f"batch norms are not folded: the folded copy differs by {off:.1e} of the largest magnitude.")
        return network
    say(f"{len(pairs)} of {norms} batch norms folded (differs by at most {off:.1e} of the largest magnitude)")
    return folded


def difference(found: Any, expected: Any) -> float:
    """Largest difference between two outputs of the same structure, each tensor's relative to its largest magnitude."""
    ours, theirs = _tensors(found), _tensors(expected)
    if [value.shape for value in ours] != [value.shape for value in theirs]:
        return float("inf")
    worst = 0.0
    for value, reference in zip(ours, theirs, strict=True):
        # One that both leave undefined (NaN, infinity) is no difference.
        off = (value.double() - reference.double()).masked_fill(~(value.isfinite() | reference.isfinite()), 0).abs()
        if off.numel() and float(off.max()) != 0:
            worst = max(worst, float(off.max() / reference.double().abs().nan_to_num(posinf=0).max()))
            if not torch.isfinite(off).all():
                return float("inf")
    return worst


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut to what fits on a screen's."""
    return (str(error).strip().splitlines() or [""])[0][:160]


def _foldable(network: nn.Module, example: Tensor) -> list[tuple[_Layer, _Norm]]:
    seen = _Readers()
    handles = [handle for module in network.modules() for handle in seen.watch(module)]
    try:
        with seen:
            output = network(example)
    finally:
        for handle in handles:
            handle.remove()
    seen.shown.update(id(value) for value in _tensors(output))
    return seen.pairs()


class _Readers(TorchDispatchMode):
    """Notes in one forward pass which norms and what else read the outputs of layers.

    It sees operations where PyTorch dispatches them, so that it is the same whatever code called them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runs: Counter[nn.Module] = Counter()
        # The tensors are kept, since the id of one that is freed may be given to the next.
        self.made: dict[int, tuple[_Layer, Tensor]] = {}
        self.readers: dict[int, set[nn.Module | None]] = {}
        self.shown: set[int] = set()
        self.norm: nn.Module | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for value in _tensors((args, kwargs)):
            if id(value) in self.made:
                self.readers.setdefault(id(value), set()).add(self.norm)
        return func(*args, **(kwargs or {}))

    def watch(self, module: nn.Module) -> list[Any]:
        """Hooks on a module; whoever else has hooks there is taken to read what they are shown."""
        hooks = [module.register_forward_hook(self._show)] if module._forward_hooks else []
        hooks += [module.register_forward_pre_hook(self._show)] if module._forward_pre_hooks else []
        if type(module) in _LAYERS:
            # A hook before a layer may also make its weights, as weight norm does.
            hooks += [module.register_forward_hook(self._made)] if not module._forward_pre_hooks else []
        elif type(module) in _NORMS:
            hooks += [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]
        return hooks

    def _show(self, module: nn.Module, inputs: Any, output: Any = None) -> None:
        # What goes into a norm is left to the hooks before it: those after it are there for its output.
        shown = output if type(module) in _NORMS and output is not None else (inputs, output)
        self.shown.update(id(value) for value in _tensors(shown))

    def _made(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, _Layer)
        self.runs[module] += 1
        self.made[id(output)] = (module, output)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self.runs[module] += 1
        self.norm = module

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.norm = None

    def pairs(self) -> list[tuple[_Layer, _Norm]]:
        """The layers with the norm that alone reads them."""
        found: list[tuple[_Layer, _Norm]] = []
        for key, (layer, output) in self.made.items():
            readers = self.readers.get(key, set())
            norm = next(iter(readers)) if len(readers) == 1 and key not in self.shown else None
            if norm is not None and self.runs[layer] == self.runs[norm] == 1:
                assert isinstance(norm, _Norm)
                # A linear layer's channels are the norm's only without further dimensions between.
                plain = output.ndim == (4 if isinstance(layer, nn.Conv2d) else 2)
                if norm.running_mean is not None and not norm.training and plain:
                    found.append((layer, norm))
        return found


def _fold(network: nn.Module, layer: _Layer, norm: _Norm) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    fuse = fusion.fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fusion.fuse_linear_bn_weights
    learns = layer.weight.requires_grad
    layer.weight, layer.bias = fuse(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, weight, bias
    )
    layer.requires_grad_(learns)
    stand_in = nn.Identity().eval()
    # Whoever holds a handle to such a hook can still take it off, since the dictionaries stay the same.
    for kind in ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"):
        setattr(stand_in, kind, getattr(norm, kind))
    for path in [path for path, module in network.named_modules(remove_duplicate=False) if module is norm]:
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, stand_in)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]

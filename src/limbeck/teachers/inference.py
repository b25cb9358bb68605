"""The teacher as what it is, a network that only answers: equal to itself to a stated tolerance, and faster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.signals import Signals
from limbeck.taps import Tapped
from limbeck.teachers._folding import TOLERANCE, difference, first_line, fold_batch_norms

__all__ = ["TOLERANCE", "fold_batch_norms", "for_inference"]

# Eight bits of mantissa, and a compiled graph rounds at other places than the plain one.
_HALF_TOLERANCE = 5e-2


def for_inference(
    tapped: Tapped, example: Any, *, compile: bool = False, say: Callable[[str], None] = lambda line: None
) -> nn.Module:
    """A module that gives the same signals as ``tapped`` in eval mode without gradient, faster.

    Batch norms are folded, see :func:`fold_batch_norms`. Compiled, it is a graph for inputs of the example's shape, dtype and
    memory format, with frozen weights on the CPU; inputs of another shape run uncompiled, so that a smaller last batch
    compiles nothing. What is compiled is compared with what is not: the largest difference allowed is 0.0001 of a
    signal's largest magnitude, and 0.05 under autocast to half precision. Where that fails, or no compiler is installed, the
    uncompiled module is returned and said to be.

    Args:
        tapped: with all its taps in place; it is not changed, and its weights must not change afterwards. Its norms are gone
            from the result, so whatever looks at them must do so before.
        example: a batch of inputs as they will come, (B, ...), in their memory format; call this in the autocast in which the
            teacher will run. For rows of tokens the network stays as it is.
        compile: costs seconds to half a minute once.
        say: is told in a line each what was done, or why not.
    """
    if not isinstance(example, Tensor):
        # Rows of tokens have another length in every batch, and language models no batch norms.
        return tapped.eval()
    eager = fold_batch_norms(tapped, example[:2], say=say).eval()
    if not compile:
        return eager
    try:
        compiled = _Compiled(eager, example).eval()
        with torch.no_grad():
            off = difference(compiled(example), eager(example))
    except Exception as error:  # a missing C++ compiler and an unsupported network come as many types
        say(f"the teacher is not compiled: {type(error).__name__}: {first_line(error)}")
        return eager
    allowed = _HALF_TOLERANCE if torch.is_autocast_enabled(example.device.type) else TOLERANCE
    if not off <= allowed:
        say(f"the teacher is not compiled: its compiled signals differ by {off:.1e} of their largest magnitude.")
        return eager
    say(f"the teacher is compiled for inputs {tuple(example.shape)} (differs by at most {off:.1e})")
    return compiled


class _Compiled(nn.Module):
    """Runs the compiled graph on inputs like the example's and the module itself on all others."""

    def __init__(self, tapped: Tapped, example: Tensor) -> None:
        super().__init__()
        # Asking for gradients later would be another graph.
        self.eager = copy.deepcopy(tapped).eval().requires_grad_(False)
        self._like = (example.shape, example.dtype, example.device)
        # In a tuple, not as a submodule: every parameter would have two names then.
        self._run: tuple[Callable[[Tensor], Any]] = (torch.compile(self.eager, dynamic=False, fullgraph=True),)
        from torch._inductor import config  # a second to import, for those who compile

        # As an option of torch.compile it comes too late: the graph then takes the weights as inputs and packs nothing.
        with config.patch(freezing=example.device.type == "cpu"), torch.no_grad():
            self._run[0](example)

    def forward(self, inputs: Tensor) -> Signals:
        alike = (inputs.shape, inputs.dtype, inputs.device) == self._like and not torch.is_grad_enabled()
        signals: Signals = self._run[0](inputs) if alike else self.eager(inputs)
        return signals

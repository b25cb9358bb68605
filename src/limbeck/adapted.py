"""A teacher once more, with adapters that learn beside the student."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from limbeck.models.language.lora import adapters_of, with_lora
from limbeck.signals import Signals
from limbeck.taps import Tapped


class AdaptedTeacher(nn.Module):
    """The teacher with adapters of low rank: (B, 1, C) or (B, 1, L, V) logits of what the student sees.

    Its parameters, buffers and ``state_dict`` are those of the adapters alone. All else is the teacher's: the very tensors, in
    eval mode, so that nothing is held twice and no dropout makes the targets noisy. At first it says what the teacher says.

    Args:
        teacher: stays as it is.
        rank: of the adapters; see :func:`limbeck.models.language.lora.with_lora`.

    Raises:
        SettingError: the teacher has no attention to adapt, or has adapters already.
        MissingExtraError: peft is not installed.
    """

    def __init__(self, teacher: Tapped, rank: int) -> None:
        super().__init__()
        tapped = _with_the_same_weights(teacher).eval()
        with_lora(tapped.network, rank)
        # In a tuple, where torch does not look for modules: what the teacher holds is not trained, moved or saved here.
        self._tapped = (tapped,)
        self.networks = nn.ModuleList([adapters_of(tapped.network)])

    def forward(self, inputs: Any, student: Signals) -> Tensor:
        said: Signals = self._tapped[0](inputs)
        assert said.logits is not None
        return said.logits[:, None]


def _with_the_same_weights(tapped: Tapped) -> Tapped:
    """A copy of the modules that holds the very same tensors; none of its parameters asks for a gradient."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in tapped.buffers()}
    shared |= {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in tapped.parameters()
    }
    return copy.deepcopy(tapped, shared)

"""Losses of rows of logits, a chunk of rows at a time, forward and backward.

A row is what is compared as a whole: the C classes of a sample, or the V tokens of a vocabulary at a position. Nothing of
the size of all rows is made in float32: the forward pass keeps a value for each row, and the backward pass computes the
chunks anew and writes the gradient in the precision of the logits (or sums that of the layer that makes them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers in a chunk: 4 MB in float32. A layer's product wants more rows: its weights are read anew for every chunk.
_OF_LOGITS, _OF_PRODUCTS = 2**20, 2**22
# So many classes torch adds up well enough.
_NARROW = 4096
# Of long sequences chunks grow instead of becoming more: each is some calls, or nodes of a compiled graph.
_MOST_CHUNKS = 64


class RowLoss(Protocol):
    """A loss of rows, from log-probabilities of the student at logits/T, in float32 or float64.

    ``target``: the teacher's log-probabilities (…, V), or int64 labels (…).
    """

    def values(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…) a value for each row."""
        ...

    def gradient(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…, V) derivative of each row's value with respect to the student's logits/T."""
        ...


class Projection(NamedTuple):
    """Logits that are not made yet: ``hidden`` (…, D) times ``weight`` (V, D), plus ``bias`` (V,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


def row_loss(
    loss: RowLoss, logits: Tensor, target: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """(…) values of a loss between logits (…, V) and a target: the teacher's logits (…, V), or int64 labels (…).

    Where ``mask`` (…) bool is False the value is 0 and the logits get a gradient of 0, whatever stands there, NaN too.
    Values are float32, or float64 for such logits; the gradient has the dtype of the logits. None reaches the target.
    """
    values: Tensor = _OfLogits.apply(logits, target, mask, loss, temperature)
    return values


def projected_row_loss(
    loss: RowLoss,
    student: Projection,
    target: Projection | Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`row_loss` of logits that never exist as a whole: a chunk of them at a time is made from the hidden states.

    The target is the teacher's projection, or labels. Gradients reach the student's hidden states, weight and bias. Logits
    have the precision that the layer would give them: that of the hidden states, or autocast's. The gradient of the weight
    is summed in float32 over the chunks. The backward pass makes the logits anew, which is one more product a network.
    """
    device = student.hidden.device.type
    precision = student.hidden.dtype
    if torch.is_autocast_enabled(device) and precision != torch.float64:
        precision = torch.get_autocast_dtype(device)
    leading = student.hidden.shape[:-1]
    told, *theirs = (target, None, None) if isinstance(target, Tensor) else target
    rows = told.reshape(-1) if isinstance(target, Tensor) else told.reshape(-1, told.shape[-1])
    values: Tensor = _OfProjections.apply(
        student.hidden.reshape(-1, student.hidden.shape[-1]),
        student.weight,
        student.bias,
        rows,
        *theirs,
        None if mask is None else mask.reshape(-1),
        loss,
        temperature,
        precision,
    )
    return values.reshape(leading)


class _OfLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, logits: Tensor, target: Tensor, mask: Tensor | None, loss: RowLoss, temperature: float
    ) -> Tensor:
        context.save_for_backward(logits, target, mask)
        context.loss, context.temperature = loss, temperature
        values = logits.new_empty(logits.shape[:-1], dtype=_wide(logits))
        for piece in _pieces(logits.shape, _OF_LOGITS):
            values[piece] = _values(loss, logits[piece], target[piece], _part(mask, piece), temperature)
        return values

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, mask = context.saved_tensors
        gradient = torch.empty_like(logits)
        for piece in _pieces(logits.shape, _OF_LOGITS):
            gradient[piece] = _gradient(
                context.loss, logits[piece], target[piece], _part(mask, piece), context.temperature, upstream[0][piece]
            )
        return gradient, None, None, None, None


class _OfProjections(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        target_weight: Tensor | None,
        target_bias: Tensor | None,
        mask: Tensor | None,
        loss: RowLoss,
        temperature: float,
        precision: torch.dtype,
    ) -> Tensor:
        context.save_for_backward(hidden, weight, bias, target, target_weight, target_bias, mask)
        context.loss, context.temperature, context.precision = loss, temperature, precision
        with torch.autocast(hidden.device.type, enabled=False):
            ours = _layer(weight, bias, precision)
            theirs = None if target_weight is None else _layer(target_weight, target_bias, precision)
            values = hidden.new_empty(len(hidden), dtype=_wide(hidden))
            for piece in _pieces((len(hidden), len(weight)), _OF_PRODUCTS):
                told = _project(target[piece], theirs)
                values[piece] = _values(loss, _project(hidden[piece], ours), told, _part(mask, piece), temperature)
        return values

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, target_weight, target_bias, mask = context.saved_tensors
        precision, (to_hidden, to_weight, to_bias) = context.precision, context.needs_input_grad[:3]
        of_hidden = torch.empty_like(hidden) if to_hidden else None
        of_weight = weight.new_zeros(weight.shape, dtype=_wide(weight)) if to_weight else None
        of_bias = bias.new_zeros(bias.shape, dtype=_wide(bias)) if to_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            ours = _layer(weight, bias, precision)
            theirs = None if target_weight is None else _layer(target_weight, target_bias, precision)
            for piece in _pieces((len(hidden), len(weight)), _OF_PRODUCTS):
                counted, rows = _part(mask, piece), hidden[piece].to(precision)
                if counted is not None:  # NaN at a masked place would pass through the product of its gradient of 0
                    rows = rows.where(counted[:, None], 0.0)
                logits, told = _project(rows, ours), _project(target[piece], theirs)
                of_logits = _gradient(context.loss, logits, told, counted, context.temperature, upstream[0][piece])
                if of_bias is not None:
                    of_bias += of_logits.sum(dim=0)
                of_logits = of_logits.to(precision)
                if of_hidden is not None:
                    of_hidden[piece] = of_logits @ ours[0]
                if of_weight is not None:
                    _add_product(of_weight, of_logits.T, rows)
        given = (None if of is None else of.to(like.dtype) for of, like in ((of_weight, weight), (of_bias, bias)))
        return of_hidden, *given, None, None, None, None, None, None, None


def _values(loss: RowLoss, logits: Tensor, target: Tensor, mask: Tensor | None, temperature: float) -> Tensor:
    values = loss.values(*_read(logits, target, temperature))
    return values if mask is None else values.where(mask, 0.0)


def _gradient(
    loss: RowLoss, logits: Tensor, target: Tensor, mask: Tensor | None, temperature: float, upstream: Tensor
) -> Tensor:
    scale = upstream if temperature == 1 else upstream / temperature
    gradient = loss.gradient(*_read(logits, target, temperature)) * scale[..., None]
    return gradient if mask is None else gradient.where(mask[..., None], 0.0)


def _read(logits: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    wide = _wide(logits)
    log_student = _log_softmax(logits.to(wide), temperature)
    return log_student, _log_softmax(target.to(wide), temperature) if target.is_floating_point() else target


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits if temperature == 1 else logits / temperature
    if scaled.shape[-1] <= _NARROW:
        return torch.log_softmax(scaled, dim=-1)
    shifted = scaled - scaled.detach().amax(dim=-1, keepdim=True)
    # torch.log_softmax on a CPU adds up one by one: over 128,000 float32 tokens the probabilities were wrong by 3e-4.
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _part(mask: Tensor | None, piece: tuple[slice, ...]) -> Tensor | None:
    return None if mask is None else mask[piece]


def _layer(weight: Tensor, bias: Tensor | None, precision: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.to(precision), None if bias is None else bias.to(precision)


def _project(rows: Tensor, layer: tuple[Tensor, Tensor | None] | None) -> Tensor:
    return rows if layer is None else F.linear(rows.to(layer[0].dtype), *layer)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _pieces(shape: Sequence[int], numbers: int) -> list[tuple[slice, ...]]:
    """Slices of the leading axes of (…, V) that make chunks of about so many numbers."""
    *leading, width = shape
    count = 1
    for size in leading:
        count *= size
    return _split(leading, max(numbers // width, -(-count // _MOST_CHUNKS), 1))


def _split(leading: Sequence[int], rows: int) -> list[tuple[slice, ...]]:
    first, *others = leading
    inside = 1
    for size in others:
        inside *= size
    if inside > rows:
        below = _split(others, rows)
        return [(slice(i, i + 1), *piece) for i in range(first) for piece in below]
    step = max(rows // max(inside, 1), 1)
    return [(slice(i, i + step),) for i in range(0, first, step)]

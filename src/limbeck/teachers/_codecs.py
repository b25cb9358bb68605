"""How logits are stored: whole, as the largest probabilities with the mass of the rest, or as random draws of classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from limbeck.errors import SettingError, unknown_name

# The logarithm of a probability that is 0: finite, so that 0 · log 0 is 0 in a divergence and not NaN.
_LOG_OF_NOTHING = -100.0
_LAYOUT = dict[str, tuple[torch.dtype, tuple[int, ...]]]
_INT16_CLASSES = 2**15


class Codec(Protocol):
    """Between a signal (B, …) and the tensors that are stored of it, by part; "" is the part of the signal's own name."""

    @property
    def text(self) -> str:
        """How the codec is written in settings and manifests."""
        ...

    def layout(self, shape: tuple[int, ...], dtype: torch.dtype) -> _LAYOUT:
        """For a signal of ``shape`` a sample, the dtype and shape a sample of each part; ``dtype`` is that of numbers."""
        ...

    def encode(self, value: Tensor, index: Tensor, slots: Tensor) -> Mapping[str, Tensor]:
        """The parts of ``value``, of the samples ``index`` in ``slots``, both int64 (B,)."""
        ...

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """float32 (B, *shape)."""
        ...

    def distance(self, value: Tensor, parts: Mapping[str, Tensor], index: Tensor, slots: Tensor) -> Tensor:
        """How far ``parts`` are from those of ``value``, (B,): relative to each sample's largest number.

        A small change of ``value`` gives a small distance, also where it changes which classes would be stored.
        """
        ...


@dataclass(frozen=True)
class Dense:
    """Every number as it is."""

    text = "dense"

    def layout(self, shape: tuple[int, ...], dtype: torch.dtype) -> _LAYOUT:
        return {"": (dtype, shape)}

    def encode(self, value: Tensor, index: Tensor, slots: Tensor) -> Mapping[str, Tensor]:
        return {"": value}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        return parts[""].float()

    def distance(self, value: Tensor, parts: Mapping[str, Tensor], index: Tensor, slots: Tensor) -> Tensor:
        value, stored = value.float().flatten(1), parts[""].float().flatten(1)
        scale = value.abs().amax(1).clamp(min=torch.finfo(torch.float16).tiny)
        return (value - stored).abs().amax(1) / scale


@dataclass(frozen=True)
class TopK:
    """The ``k`` largest log-probabilities, their classes, and the probability of all other classes together.

    Decoded to log-probabilities whose exponentials sum to 1: the stored ones, and the mass of the rest spread evenly over
    the other classes. With k at least the number of classes nothing is lost but the logits' common shift, which no softmax
    sees. Otherwise what the teacher says about the rest is lost, and a student learns a flatter tail than the teacher's: the
    loss and its gradient are biased, the more the larger the temperature.
    """

    k: int

    @property
    def text(self) -> str:
        return f"topk({self.k})"

    def layout(self, shape: tuple[int, ...], dtype: torch.dtype) -> _LAYOUT:
        *outer, classes = shape
        kept = (*outer, min(self.k, classes))
        return {
            "values": (dtype, kept),
            "classes": (_class_dtype(classes), kept),
            "rest": (torch.float32, (*outer, 1)),
        }

    def encode(self, value: Tensor, index: Tensor, slots: Tensor) -> Mapping[str, Tensor]:
        log_probabilities = value.float().log_softmax(-1)
        largest, classes = log_probabilities.topk(min(self.k, value.shape[-1]))
        # Summed over the rest itself: one minus the others would be their rounding error.
        rest = log_probabilities.scatter(-1, classes, float("-inf")).exp().sum(-1, keepdim=True)
        return {"values": largest, "classes": classes, "rest": rest}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        values = parts["values"].float()
        others = max(1, shape[-1] - values.shape[-1])
        even = (parts["rest"] / others).log().clamp(min=_LOG_OF_NOTHING)
        filled = even.expand(*values.shape[:-1], shape[-1]).scatter(-1, parts["classes"].long(), values)
        return filled.log_softmax(-1)

    def distance(self, value: Tensor, parts: Mapping[str, Tensor], index: Tensor, slots: Tensor) -> Tensor:
        log_probabilities = value.float().log_softmax(-1)
        at_stored = log_probabilities.gather(-1, parts["classes"].long())
        rest = log_probabilities.exp().sum(-1, keepdim=True) - at_stored.exp().sum(-1, keepdim=True)
        apart = torch.cat([at_stored - parts["values"].float(), rest - parts["rest"]], -1)
        return apart.abs().flatten(1).amax(1) / _scale(value)


@dataclass(frozen=True)
class Sampled:
    """``n`` classes drawn with replacement from the teacher's distribution p at temperature 1 (arXiv 2503.16870).

    Stored as class ids, as often as each was drawn; decoded to the logarithm of their frequencies, so that the softmax at
    temperature 1 is an estimate of p. Its mean over the draws is p itself. So whatever is linear in the teacher's
    probabilities has the right mean, gradient included: the cross-entropy −Σ p log q with the student's q at temperature 1,
    and with it the gradient of the divergence KL(p‖q). What is not linear in p is biased: the value of the divergence (the
    draws' entropy is lower than p's), any temperature but 1, the logits or their standardisation, ranks, and so DIST, DKD and
    the like. A class that was not drawn has the log-probability -100.

    The draws depend on the sample's index and its slot alone.
    """

    n: int

    @property
    def text(self) -> str:
        return f"sampled({self.n})"

    def layout(self, shape: tuple[int, ...], dtype: torch.dtype) -> _LAYOUT:
        *outer, classes = shape
        return {"classes": (_class_dtype(classes), (*outer, self.n))}

    def encode(self, value: Tensor, index: Tensor, slots: Tensor) -> Mapping[str, Tensor]:
        # In float64, since the sum of a large vocabulary's probabilities in float32 has gaps where rare classes are.
        cumulative = value.double().softmax(-1).cumsum(-1)
        classes = torch.searchsorted(cumulative, self._draws(cumulative, index, slots), right=True)
        return {"classes": classes.clamp(max=value.shape[-1] - 1)}

    def decode(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        classes = parts["classes"].long()
        zeros = torch.zeros(*classes.shape[:-1], shape[-1], device=classes.device)
        frequencies = zeros.scatter_add(-1, classes, torch.full_like(classes, 1 / self.n, dtype=torch.float32))
        return frequencies.log().clamp(min=_LOG_OF_NOTHING)

    def distance(self, value: Tensor, parts: Mapping[str, Tensor], index: Tensor, slots: Tensor) -> Tensor:
        cumulative, classes = value.double().softmax(-1).cumsum(-1), parts["classes"].long()
        draws = self._draws(cumulative, index, slots)
        high = cumulative.gather(-1, classes)
        low = torch.where(classes > 0, cumulative.gather(-1, (classes - 1).clamp(min=0)), 0)
        outside = (low - draws).clamp(min=0) + (draws - high).clamp(min=0)
        return (outside.flatten(1).amax(1) / _scale(value)).float()

    def _draws(self, cumulative: Tensor, index: Tensor, slots: Tensor) -> Tensor:
        """float64 (B, …, n) points of the cumulative distribution."""
        places = cumulative[0, ..., 0].numel() * self.n
        uniform = _uniform(index, slots, places).to(cumulative.device)
        return uniform.reshape(*cumulative.shape[:-1], self.n) * cumulative[..., -1:]


def _scale(logits: Tensor) -> Tensor:
    return logits.float().abs().flatten(1).amax(1).clamp(min=1)


def _class_dtype(classes: int) -> torch.dtype:
    return torch.int16 if classes <= _INT16_CLASSES else torch.int32


def _uniform(index: Tensor, slots: Tensor, count: int) -> Tensor:
    """float64 (B, count) in [0, 1), a function of the sample, the slot and the column alone."""
    state = _scramble(_scramble(index.cpu()) + slots.cpu()).unsqueeze(1) + torch.arange(count)
    return torch.bitwise_and(_scramble(state) >> 11, 2**52 - 1).double() / 2**52


def _scramble(values: Tensor) -> Tensor:
    """splitmix64 on int64, whose products wrap around as those of unsigned numbers do."""
    values = values + _signed(0x9E3779B97F4A7C15)
    values = (values ^ _shifted(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shifted(values, 27)) * _signed(0x94D049BB133111EB)
    return torch.bitwise_xor(values, _shifted(values, 31))


def _shifted(values: Tensor, bits: int) -> Tensor:
    # The shift of a signed number brings in its sign.
    return torch.bitwise_and(values >> bits, 2 ** (64 - bits) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_WITH_NUMBER: dict[str, tuple[str, Callable[[int], Codec]]] = {"topk": ("k", TopK), "sampled": ("n", Sampled)}


def parse_codec(text: str) -> Codec:
    """A codec from text: ``dense``, ``topk(64)`` or ``topk(k=64)``, ``sampled(50)`` or ``sampled(n=50)``.

    Raises SettingError on another name, or a number that is not whole and at least 1.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*(?:(\w+)\s*=\s*)?(\d+)\s*\))?\s*", text)
    name, argument, number = found.groups() if found else (text, None, None)
    if name == Dense.text and number is None:
        return Dense()
    if name not in _WITH_NUMBER:
        accepted = ["dense", *(f"{known}({argument}=…)" for known, (argument, _) in _WITH_NUMBER.items())]
        raise SettingError(unknown_name("way to store logits", text, accepted))
    wanted, codec = _WITH_NUMBER[name]
    if number is None or int(number) < 1 or argument not in (None, wanted):
        raise SettingError(f"{name} needs a whole number of at least 1, as in {name}({wanted}=64); got {text!r}.")
    return codec(int(number))

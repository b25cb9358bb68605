"""How the next token is drawn from a model's logits."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from limbeck.errors import SettingError, check_number, check_whole, unknown_name
from limbeck.expression import parse_call

# A nucleus is nearly always among so many tokens; to sort a vocabulary of 100,000 costs more than a small student's pass.
_HEAD = 256


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the ``top_k`` most probable tokens, then the nucleus: the order of Hugging Face's generation.

    A token is drawn by the inverse of the distribution function at a given uniform number u: the first token at which the
    summed probability exceeds u. So the same logits and the same u give the same token, whatever the rest of the batch draws.

    Args:
        temperature: logits are divided by it; 0 takes the most probable token (the first of equals). At least 0.
        top_p: the smallest set of most probable tokens that holds this much probability is kept, in (0, 1]; 1 keeps all.
        top_k: so many most probable tokens are kept; 0 keeps all. (Not the K of ``speculative``, which reads raw logits.)

    Raises:
        SettingError: a value out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, low=0)
        check_number("top_p", self.top_p, low=0, high=1, open_low=True)
        check_whole("top_k", self.top_k, low=0)

    def choose(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """One token a row.

        Args:
            logits: (N, V) of any floating type; -inf is a token that cannot be. Computed in float32, summed in float64.
            uniforms: (N,) float64 in [0, 1).

        Returns:
            (N,) int64 tokens, and (N,) bool: whether the row's logits were usable (no NaN, no +inf, not all -inf). The token
            of a row that was not is arbitrary, but within the vocabulary.
        """
        logits = logits.float()
        highest = logits.amax(-1, keepdim=True)
        if self.temperature == 0:
            return logits.argmax(-1), highest.squeeze(-1).isfinite()
        # A temperature that is 0 or infinite in float32 would make 0 / 0 of the most probable token, or of one that cannot be.
        range_of = torch.finfo(torch.float32)
        temperature = min(max(self.temperature, range_of.tiny), range_of.max)
        # Not normalised: the draw scales u instead.
        weights = ((logits - highest) / temperature).exp()
        if self.top_k or self.top_p < 1:
            return self._from_most_probable(weights, uniforms), highest.squeeze(-1).isfinite()
        summed = weights.cumsum(-1, dtype=torch.float64)
        return _inverse(summed, uniforms, summed[:, -1]), highest.squeeze(-1).isfinite()

    def _from_most_probable(self, weights: Tensor, uniforms: Tensor) -> Tensor:
        vocabulary = weights.shape[-1]
        if self.top_k:
            values, tokens = weights.topk(min(self.top_k, vocabulary))
            return self._from_nucleus(values, tokens, uniforms, values.sum(-1, dtype=torch.float64))
        wanted = weights.sum(-1, dtype=torch.float64)
        values, tokens = weights.topk(min(_HEAD, vocabulary))
        chosen = self._from_nucleus(values, tokens, uniforms, wanted)
        # Row by row, so that a row's way of being drawn does not depend on the others.
        wide = values.sum(-1, dtype=torch.float64) < self.top_p * wanted
        if vocabulary > _HEAD and bool(wide.any()):
            values, tokens = weights[wide].sort(stable=True, dim=-1, descending=True)
            chosen[wide] = self._from_nucleus(values, tokens, uniforms[wide], wanted[wide])
        return chosen

    def _from_nucleus(self, values: Tensor, tokens: Tensor, uniforms: Tensor, whole: Tensor) -> Tensor:
        """One of ``tokens``, which are in falling order of their weights ``values``; ``whole`` is what all of them weigh."""
        summed = values.cumsum(-1, dtype=torch.float64)
        inside = (summed - values) < (self.top_p * whole)[:, None]
        last = (inside.sum(-1, keepdim=True) - 1).clamp(min=0)
        place = _inverse(summed, uniforms, summed.gather(-1, last).squeeze(-1))
        return tokens.gather(-1, torch.minimum(place[:, None], last)).squeeze(-1)


def _inverse(summed: Tensor, uniforms: Tensor, whole: Tensor) -> Tensor:
    """(N,) the first place at which the running sum (N, V) exceeds u times ``whole``."""
    places = torch.searchsorted(summed, (uniforms * whole)[:, None], right=True).squeeze(-1)
    # Beyond the end only by rounding, or where the sums are NaN.
    return places.clamp(max=summed.shape[-1] - 1)


def parse_sampling(text: str) -> Sampling:
    """The sampling that ``temperature=0.5, top_p=0.5`` describes; no code is run.

    Raises:
        SettingError: it cannot be read, or names an argument that does not exist.
    """
    arguments = parse_call(f"sampling({text})", "sampling").arguments
    accepted = [item.name for item in fields(Sampling)]
    for name in arguments:
        if name not in accepted:
            raise SettingError(unknown_name("argument of sampling", name, accepted))
    return Sampling(**arguments)

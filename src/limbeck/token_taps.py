"""Reads Signals off a language model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import TapError
from limbeck.signals import Signals
from limbeck.taps import Tapped, find_classifier, logits_of
from limbeck.tokens import Tokens


class TokenTapped(Tapped):
    """A network of Hugging Face, or one that is called like it: forward takes :class:`Tokens` and returns :class:`Signals`.

    A causal model gives logits (B, L, V), and as embedding (B, D) the mean of its last hidden states over the tokens of a
    row. A classifier of sequences gives logits (B, C), and as embedding what its classifier takes. A map that is tapped,
    (B, L, D), becomes (B, D, L, 1), with zeros where a row is only filled up. Rows that are mixed with others
    (``Tokens.shares``) are so at the network's own word embeddings; places and sentences are not mixed.

    Args:
        network, features, classifier: see :class:`Tapped`.
        causal: whether it predicts the next token at each position.
        vocabulary: so many of its first logits are tokens of the tokenizer, and the others are left out: tables are often
            filled up to a round number. None for all.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        causal: bool,
        vocabulary: int | None = None,
        features: Mapping[str, str] | Sequence[str] = (),
        classifier: str | None = None,
    ) -> None:
        super().__init__(network, features=features, classifier=classifier)
        self.causal, self.vocabulary = causal, vocabulary
        self._call, self._mixing = _Call(network, causal), _MixEmbeddings()
        embeddings = _word_embeddings(network)
        if embeddings is not None:
            self._handles.append(embeddings.register_forward_hook(self._mixing))
        self._mixes = embeddings is not None

    def forward(self, inputs: Tokens) -> Signals:
        if inputs.shares is not None and not self._mixes:
            raise TapError(
                f"{type(self.network).__name__} does not tell its word embeddings (get_input_embeddings), so texts cannot be "
                "mixed there; train without mixup."
            )
        self._recorded.clear()
        self._mixing.inputs = inputs
        logits = logits_of(self.network(**self._call.arguments(inputs)))
        if self.vocabulary is not None and logits.shape[-1] > self.vocabulary:
            logits = logits[..., : self.vocabulary]
        return self._said(logits, partial(self._pool, inputs), partial(_as_map, inputs))

    def _pool(self, inputs: Tokens, hidden: Tensor) -> Tensor:
        if hidden.ndim == 2:
            return hidden
        if hidden.ndim != 3:
            raise TapError(f"the classifier's input has shape {tuple(hidden.shape)}; expected (B, D) or (B, L, D).")
        if not self.causal:
            # A decoder that classifies takes the logits of the last token.
            last = (inputs.attention * torch.arange(hidden.shape[1], device=hidden.device)).argmax(dim=1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        counts = inputs.attention.sum(dim=1, keepdim=True).clamp(min=1)
        return (hidden * inputs.attention[..., None]).sum(dim=1) / counts


def language_classifier(network: nn.Module, inputs: Tokens, *, causal: bool) -> str:
    """Path of the layer that makes a language model's logits.

    That is what the network names as its output embeddings, else what :func:`find_classifier` finds, else the layer
    ``score`` of decoders that classify.

    Raises:
        TapError: no such layer, or several.
    """
    named = getattr(network, "get_output_embeddings", None)
    head = named() if causal and callable(named) else None
    for path, module in network.named_modules():
        if module is head:
            return str(path)
    prefix = "network."
    try:
        return find_classifier(_Called(network, causal), inputs).removeprefix(prefix)
    except TapError:
        # Beside adapters it is a copy that learns, behind the one that was there.
        scores: list[str] = [path for path, module in network.named_modules() if _is_score(path, module)]
        if scores:
            return scores[-1]
        raise


def _is_score(path: str, module: nn.Module) -> bool:
    return path.partition(".")[0] == "score" and isinstance(module, nn.Linear)


class _MixEmbeddings:
    # A class and not a closure: a deep copy of the tapped network then mixes what its own copy is given.
    def __init__(self) -> None:
        self.inputs: Tokens | None = None

    def __call__(self, module: nn.Module, given: Any, embedded: Tensor) -> Tensor | None:
        inputs = self.inputs
        if inputs is None or inputs.shares is None:
            return None
        # Not called as a module is, which would come here again.
        others, shares = module.forward(inputs.others), inputs.shares.to(embedded.dtype)
        mixed: Tensor = shares[..., :1] * embedded + shares[..., 1:] * others
        return mixed


def _word_embeddings(network: nn.Module) -> nn.Module | None:
    tell = getattr(network, "get_input_embeddings", None)
    found = tell() if callable(tell) else None
    return found if isinstance(found, nn.Module) else None


class _Call:
    """What a network is called with: of the inputs those that its forward takes, and no cache, which training would not use."""

    def __init__(self, network: nn.Module, causal: bool) -> None:
        parameters = inspect.signature(network.forward).parameters
        self._open = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        self._known, self._causal = set(parameters), causal

    def arguments(self, inputs: Tokens) -> dict[str, Tensor | bool]:
        given: dict[str, Tensor | bool] = {**(inputs.causal() if self._causal else inputs.sequence())}
        if "use_cache" in self._known:
            given["use_cache"] = False
        return {name: value for name, value in given.items() if self._open or name in self._known}


class _Called(nn.Module):
    def __init__(self, network: nn.Module, causal: bool) -> None:
        super().__init__()
        self.network, self._call = network, _Call(network, causal)

    def forward(self, inputs: Tokens) -> Tensor:
        return logits_of(self.network(**self._call.arguments(inputs)))


def _as_map(inputs: Tokens, value: Tensor) -> Tensor | None:
    if value.ndim != 3 or value.shape[:2] != inputs.shape:
        return None
    return (value * inputs.attention[..., None]).transpose(1, 2)[..., None]

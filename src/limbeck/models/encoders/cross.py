"""Cross-encoders: networks that read a query and a document together and give one score."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from limbeck.errors import MissingExtraError, WeightsError
from limbeck.models.encoders.open import check_config, check_weights
from limbeck.models.encoders.quiet import quiet

_LONGEST = 512
"""Tokens of a pair where neither tokenizer nor network names a number."""


class CrossEncoder(nn.Module):
    """A network of Hugging Face that classifies a sequence with one logit.

    network: with ``logits`` (P, 1). tokenizer: its own, a fast one. max_length: tokens of the longest pair.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, max_length: int) -> None:
        super().__init__()
        self.network, self.tokenizer, self.max_length = network, tokenizer, max_length

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(P,) scores of pairs, before any activation."""
        scores: Tensor = self.network(**inputs).logits
        return scores.squeeze(-1)

    def with_states(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(P,) scores, and the states (P, L, W) of the tokens after the last layer."""
        found = self.network(**inputs, output_hidden_states=True)
        return found.logits.squeeze(-1), found.hidden_states[-1]


def open_cross_encoder(folder: str | os.PathLike[str]) -> CrossEncoder:
    """A cross-encoder of a folder, as sentence-transformers or Hugging Face save one; nothing is downloaded or unpickled.

    Scores are logits: an activation that the folder names for its users is left out, as losses on scores want it.

    Raises:
        WeightsError: there is no such folder, it is no classifier with one logit, its weights are no safetensors, it has no
            fast tokenizer, or it asks for code of its own.
        MissingExtraError: transformers is not installed.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise WeightsError(f"there is no folder '{path}' with a cross-encoder in it.")
    check_weights(path)
    config = check_config(path / "config.json")
    architectures = [str(name) for name in config.get("architectures") or ()]
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise WeightsError(
            f"'{path}' is no cross-encoder: it must be a network for sequence classification, and holds "
            f"{', '.join(architectures) or 'an unnamed network'}."
        )
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "retrieval", f"the cross-encoder '{path}'") from error
    with quiet():
        network = AutoModelForSequenceClassification.from_pretrained(
            str(path), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    if network.config.num_labels != 1:
        raise WeightsError(f"'{path}' gives {network.config.num_labels} logits; a cross-encoder that scores gives one.")
    if not tokenizer.is_fast:
        raise WeightsError(
            f"the tokenizer of '{path}' is not a fast one, and does not tell which token is of which text."
        )
    own = getattr(network.config, "max_position_embeddings", None) or _LONGEST
    return CrossEncoder(network.eval(), tokenizer, min(own, tokenizer.model_max_length))

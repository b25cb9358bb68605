"""A network on text by itself, with its tokenizer and what its file says of it: to be exported or looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.text import special_tokens
from limbeck.data.text.corpus import tokenizer_of_facts
from limbeck.modalities.search import Search
from limbeck.modalities.search_networks import documents_of, opened
from limbeck.models.encoders import Encoder, open_encoder
from limbeck.models.language import (
    context_of,
    create_language_model,
    has_adapters,
    load_tokenizer,
    merged,
    write_folder,
)
from limbeck.models.spec import parse_spec
from limbeck.networks import read_card, resolve
from limbeck.runs import STUDENT
from limbeck.taps import logits_of

Predict = Callable[[dict[str, Tensor]], Tensor]
_CAUSAL, _SEARCH = "causal", "search"
_LONGEST = 512
_PIPELINE = "modules.json"
_MADE_FOR = {"ForCausalLM": _CAUSAL, "LMHeadModel": _CAUSAL, "ForSequenceClassification": "classification"}
"""How names of transformers' classes end."""


@dataclass(frozen=True)
class TextNetwork:
    """A network on text, in eval mode and on the CPU.

    kind: "causal", "classification" or "search". width: numbers that it gives for a text, or for each token. pad: the token
    that rows are filled up with. vocabulary: how many tokens the tokenizer has. types: whether it takes ``token_type_ids``.
    folder_tokenizer: what is written into the folder; None for a tokenizer that is none of Hugging Face, of which ``told``
    says what its tokens are. documents_of: whose documents it searches, where it learnt to encode queries alone.
    """

    kind: str
    name: str
    network: nn.Module
    data: str | None
    width: int
    max_length: int
    pad: int
    vocabulary: int
    types: bool
    tokenizer: Any
    folder_tokenizer: Any
    told: str
    classes: tuple[str, ...] | None = None
    similarity: str | None = None
    documents_of: str | None = None

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, W) embeddings or logits, or of a causal model (B, L, V) logits."""
        if isinstance(self.network, Encoder):
            found: Tensor = self.network(inputs)
            return found
        return logits_of(self.network(**inputs))

    def with_types(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs with a first sentence alone, where the network asks which sentence a token is of."""
        return {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])} if self.types else inputs

    def write_folder(self, path: Path) -> None:
        """Write it as a folder into an empty one."""
        if not isinstance(self.network, Encoder):
            write_folder(self.network, self.folder_tokenizer, path)
            return
        made = self.network.save(path / "made")
        for each in made.iterdir():
            each.rename(path / each.name)
        made.rmdir()

    def open_folder(self, path: Path) -> Predict:
        """What computes from a written folder, and from nothing else."""
        if self.kind == _SEARCH:
            return open_encoder(path).eval()
        import transformers

        auto = (
            transformers.AutoModelForCausalLM
            if self.kind == _CAUSAL
            else transformers.AutoModelForSequenceClassification
        )
        network = auto.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
        return lambda inputs: logits_of(network(**inputs))


def text_kind(model: str) -> str | None:
    """What a network on text does, as its file or its folder says: "causal", "classification", "search"; None for others.

    A network of Hugging Face is one where its folder or name is written ``hf:…`` and it was made for text.
    """
    path = Path(model).expanduser()
    if (path / _PIPELINE).is_file():
        return _SEARCH
    if (path / STUDENT).is_file() or path.suffix == ".safetensors":
        return _of_card(read_card(path / STUDENT if path.is_dir() else path))
    spec = parse_spec(model)
    if spec.weights is not None and (found := _of_card(read_card(spec.weights))) is not None:
        return found
    return _published(spec.name) if spec.source == "hf" else None


def _of_card(facts: Mapping[str, Any]) -> str | None:
    kind = facts.get("modality")
    return _SEARCH if kind == "search" else str(facts["task"]) if kind == "text" else None


def _published(folder: str) -> str | None:
    """By the class that a folder of Hugging Face was made for; None for a name, which would have to be fetched to tell."""
    path = Path(folder).expanduser()
    if (path / _PIPELINE).is_file():
        return _SEARCH
    try:
        made_for = json.loads((path / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    except (OSError, ValueError, AttributeError):
        return None
    return next((kind for end, kind in _MADE_FOR.items() if str(made_for[0]).endswith(end)), None)


def open_text(model: str, kind: str) -> TextNetwork:
    """The network that a text names, which is of this kind.

    Raises:
        LimbeckError: it cannot be made, or its weights do not fit.
    """
    return _encoder(model) if kind == _SEARCH else _language(model, kind)


def _encoder(model: str) -> TextNetwork:
    facts = read_card(Search.spec(model).weights or "")
    name, encoder = opened(model, None, _LONGEST)
    tokenizer = encoder.tokenizer
    return TextNetwork(
        kind=_SEARCH,
        name=name,
        network=_frozen(encoder),
        data=facts.get("data"),
        width=encoder.width,
        max_length=encoder.max_length,
        pad=int(tokenizer.pad_token_id or 0),
        vocabulary=len(tokenizer),
        types="token_type_ids" in tokenizer.model_input_names,
        tokenizer=tokenizer,
        folder_tokenizer=tokenizer,
        told="",
        similarity=encoder.similarity,
        documents_of=documents_of(model),
    )


def _language(model: str, kind: str) -> TextNetwork:
    text = resolve(model)
    facts = read_card(parse_spec(text, unprefixed="language").weights or "")
    told = facts.get("tokenizer") or {"kind": "network", "spec": text.partition("@")[0]}
    small = tokenizer_of_facts(told)
    tokenizer: Any = load_tokenizer(told["spec"]) if small is None else small
    causal, classes = kind == _CAUSAL, facts.get("classes")
    special = special_tokens(tokenizer) if causal else None
    pad = tokenizer.pad_token_id if special is None else special.pad
    created = create_language_model(
        text,
        task="causal" if causal else "classification",
        vocabulary=len(tokenizer),
        num_classes=len(classes) if classes else None,
        context=facts.get("context") or facts.get("max_length"),
        pad=pad,
        end=None if special is None else special.end,
    )
    network = merged(created.network) if has_adapters(created.network) else created.network
    config: Any = network.config
    if classes:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: number for number, name in enumerate(classes)}
    context = context_of(network)
    return TextNetwork(
        kind=kind,
        name=created.name,
        network=_frozen(network),
        data=facts.get("data"),
        width=len(tokenizer) if causal else int(config.num_labels),
        max_length=int(facts.get("max_length") or context or _LONGEST),
        pad=int(pad or 0),
        vocabulary=len(tokenizer),
        types=not causal and "token_type_ids" in getattr(tokenizer, "model_input_names", ()),
        tokenizer=tokenizer,
        folder_tokenizer=None if small is not None else tokenizer,
        told="" if small is None else _told(small),
        classes=tuple(classes) if classes else None,
    )


def _frozen(network: nn.Module) -> Any:
    return network.eval().requires_grad_(False)


def _told(tokenizer: Any) -> str:
    alphabet = getattr(tokenizer, "alphabet", None)
    if alphabet is None:
        return "bytes of UTF-8, 0 to 255; 256 fills rows up, 257 ends a text"
    return f"characters, from 2 on those of {alphabet!r} in this order; 0 fills rows up, 1 ends a text"


class Predicting(nn.Module):
    """A network on text as a module that takes rows of tokens (B, L) int64, none of them filled up."""

    def __init__(self, network: TextNetwork) -> None:
        super().__init__()
        self.inner, self._network = network.network, network

    def forward(self, tokens: Tensor) -> Tensor:
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return self._network.predict(self._network.with_types(inputs))

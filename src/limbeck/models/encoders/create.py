"""Makes an encoder of texts from the text that names it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import SettingError, WeightsError, check_whole, unknown_name
from limbeck.models.encoders.encoder import Encoder, project
from limbeck.models.encoders.open import open_encoder
from limbeck.models.encoders.quiet import quiet
from limbeck.models.language import create_language_model, keep_layers, layers_of
from limbeck.models.spec import PRETRAINED, RANDOM, ModelSpec, parse_spec
from limbeck.models.weights import load_weights, save_weights

PUBLISHED = "hf"
_ACCEPTED = ("keep_layers", "pooling", "project", "similarity")


@dataclass(frozen=True)
class CreatedEncoder:
    """An encoder and where it comes from.

    name: the text that names it, without a file of weights. weights: the file, or None. published: whether it comes from a
    folder, with a tokenizer of its own.
    """

    encoder: Encoder
    name: str
    weights: str | None
    published: bool


def create_encoder(
    spec: str, *, tokenizer: Any = None, max_length: int = 512, similarity: str = "cosine"
) -> CreatedEncoder:
    """An encoder from ``[SOURCE:]NAME[(keyword=literal, …)][@FILE]``.

    ``hf:FOLDER`` is a folder of sentence-transformers or an encoder of Hugging Face (see :func:`open_encoder`), with the
    arguments ``keep_layers`` (see :func:`limbeck.models.language.keep_layers`), ``project`` (numbers of an embedding, by a
    linear layer that is part of the network), ``similarity`` and, where the folder has none, ``pooling``. The others are made
    in place, such as ``bert(layers=1, width=32, heads=2)``, with random weights: the mean of the tokens' vectors, scaled to
    length 1 where they are scored by cosines; ``project`` is theirs too.

    tokenizer: of Hugging Face, for encoders that are made in place. max_length: tokens of their longest text. similarity:
    what they are scored by.

    Raises:
        SettingError, WeightsError, MissingExtraError: the text, a folder, a number or the weights cannot be used.
    """
    parsed = parse_spec(spec, unprefixed="language")
    published = parsed.source == PUBLISHED
    if parsed.weights in (PRETRAINED, RANDOM):
        raise SettingError(
            f"{parsed.text}: weights are a file here; a folder brings its own, and others start at random."
        )
    encoder = _published(parsed) if published else _made(parsed, tokenizer, max_length, similarity)
    if parsed.weights is not None:
        load_weights(encoder, parsed.weights, setting=parsed.text)
    return CreatedEncoder(encoder, parsed.text, parsed.weights, published)


def _published(parsed: ModelSpec) -> Encoder:
    arguments: Mapping[str, Any] = parsed.arguments
    for name in arguments:
        if name not in _ACCEPTED:
            raise SettingError(f"{parsed.text}: {unknown_name('argument', name, _ACCEPTED)}")
    encoder = open_encoder(parsed.name, pooling=arguments.get("pooling"))
    if "keep_layers" in arguments:
        keep_encoder_layers(encoder, arguments["keep_layers"])
    if "project" in arguments:
        encoder = _projected(encoder, arguments["project"])
    if "similarity" in arguments:
        encoder.model.similarity_fn_name = arguments["similarity"]
    return encoder


def _projected(encoder: Encoder, width: Any) -> Encoder:
    check_whole("project", width, low=1)
    return project(encoder, width)


def keep_encoder_layers(encoder: Encoder, layers: Any) -> int:
    """Leave an encoder these layers alone, by their indices; pooling, projection, scaling and prompts stay as they are.

    Returns how many it had. Raises SettingError as :func:`limbeck.models.language.keep_layers` does.
    """
    transformer = next(iter(encoder.model.children()))
    whole = transformer.auto_model
    name = next(name for name, child in transformer.named_children() if child is whole)
    setattr(transformer, name, keep_layers(whole, layers))
    return len(layers_of(whole))


def _made(parsed: ModelSpec, tokenizer: Any, max_length: int, similarity: str) -> Encoder:
    if tokenizer is None:
        raise SettingError(f"{parsed.text} is made in place and has no tokenizer of its own; give one.")
    created = create_language_model(
        _without_projection(parsed),
        task="encoder",
        vocabulary=len(tokenizer),
        context=max_length,
        pad=tokenizer.pad_token_id,
    )
    with tempfile.TemporaryDirectory() as folder, quiet():
        # Not by save_pretrained of the network, which of several processes writes in the first alone.
        _config_of(created.network).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_weights(created.network, Path(folder) / "model.safetensors", {"format": "pt"})
        encoder = open_encoder(folder)
    finished = _finished(encoder, max_length, similarity)
    return _projected(finished, parsed.arguments["project"]) if "project" in parsed.arguments else finished


def _without_projection(parsed: ModelSpec) -> str:
    if "project" not in parsed.arguments:
        return parsed.text
    rest = ", ".join(f"{name}={value!r}" for name, value in parsed.arguments.items() if name != "project")
    return f"{parsed.source}:{parsed.name}({rest})"


def _config_of(network: nn.Module) -> Any:
    return network.config


def _finished(encoder: Encoder, max_length: int, similarity: str) -> Encoder:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    modules: list[nn.Module] = list(encoder.model.children())
    if similarity == "cosine":
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name=similarity, local_files_only=True)
    model.max_seq_length = max_length
    return Encoder(model)


def encoder_of(module: nn.Module) -> Encoder:
    """The encoder that a module is: an :class:`Encoder`, or a ``SentenceTransformer``.

    Raises:
        WeightsError: it is neither.
    """
    if isinstance(module, Encoder):
        return module
    if hasattr(module, "similarity_fn_name") and hasattr(module, "max_seq_length"):
        return Encoder(module)
    raise WeightsError(
        f"{type(module).__name__} is no encoder of texts; give a limbeck.models.encoders.Encoder or a SentenceTransformer."
    )

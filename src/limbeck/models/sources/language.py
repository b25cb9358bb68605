"""Language models that are made here, of any size and without a download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from limbeck.errors import SettingError
from limbeck.models.language.architectures import ARCHITECTURES, CLASSES, Architecture
from limbeck.models.sources.base import (
    Built,
    BuiltLanguage,
    LanguageRequest,
    Request,
    Source,
    Task,
    check_arguments,
    no_published_weights,
)
from limbeck.models.sources.registry import register_source
from limbeck.models.sources.transformers_config import dtype_of, import_transformers

COUNTED_VOCABULARY = 32_000


@register_source
class LanguageSource(Source):
    """``llama(layers=2, width=64, heads=4)``, ``bert_tiny``: where a language model is asked for, also without the prefix."""

    name = "language"
    reserved = {"num_labels": "write num_classes=N"}

    def build(self, request: Request) -> Built:
        raise SettingError(
            f"{self.name}:{request.name} reads text and no images; 'limbeck list models' names networks for images."
        )

    def build_language(self, request: LanguageRequest) -> BuiltLanguage:
        label = request.name
        architecture = self._architecture(request.name)
        if request.published:
            raise no_published_weights(label)
        if request.task not in architecture.tasks:
            others = [name for name, other in ARCHITECTURES.items() if request.task in other.tasks]
            raise SettingError(f"{label} does not do the task '{request.task}'; these do: {', '.join(others)}.")
        if request.arguments.get("vocabulary", request.vocabulary) is None:
            raise SettingError(f"{label} needs the vocabulary, the number of tokens; write {label}(vocabulary=N).")
        offered = {"vocabulary": request.vocabulary, "context": request.context}
        written = {name: value for name, value in request.arguments.items() if name != "num_classes"}
        arguments = {**{name: value for name, value in offered.items() if value is not None}, **written}
        transformers = import_transformers(f"the language model {label}")
        check_arguments(label, architecture.configure, arguments)
        config = architecture.configure(**arguments)
        if request.classes is not None:
            config.num_labels = request.classes
        network = getattr(transformers, CLASSES[request.task]).from_config(
            config, dtype=dtype_of(request.dtype, config)
        )
        return BuiltLanguage(network)

    def language_task(self, name: str, arguments: Mapping[str, Any]) -> Task:
        return self._architecture(name).tasks[0]

    def names(self) -> Sequence[str]:
        return list(ARCHITECTURES)

    def parameters(self, name: str) -> int | None:
        """Parameters for 32,000 tokens; None where transformers is not installed."""
        if find_spec("transformers") is None:
            return None
        request = LanguageRequest(name, {}, ARCHITECTURES[name].tasks[0], COUNTED_VOCABULARY, None, None, None)
        with torch.device("meta"):
            network = self.build_language(request).network
        return sum(parameter.numel() for parameter in network.parameters())

    def _architecture(self, name: str) -> Architecture:
        if name not in ARCHITECTURES:
            raise self.unknown(name, "Published ones are named as in hf:NAME or hf:FOLDER.")
        return ARCHITECTURES[name]

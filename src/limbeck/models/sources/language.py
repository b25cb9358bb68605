"""Language models that are made here, of any size and without a download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import torch

from limbeck.errors import SettingError
from limbeck.models.language.architectures import ARCHITECTURES, CLASSES
from limbeck.models.sources.base import (
    Built,
    BuiltLanguage,
    LanguageRequest,
    Request,
    Source,
    check_arguments,
    no_published_weights,
)
from limbeck.models.sources.registry import register_source
from limbeck.models.sources.transformers_config import import_transformers

COUNTED_VOCABULARY = 32_000


@register_source
class LanguageSource(Source):
    """``llama(layers=2, width=64, heads=4)``, ``bert_tiny``: where a language model is asked for, also without the prefix."""

    name = "language"
    reserved: Mapping[str, str] = {"num_labels": "write num_classes=N"}

    def build(self, request: Request) -> Built:
        raise SettingError(
            f"{self.name}:{request.name} reads text and no images; 'limbeck list models' names networks for images."
        )

    def build_language(self, request: LanguageRequest) -> BuiltLanguage:
        label = request.name
        if request.name not in ARCHITECTURES:
            raise self.unknown(request.name, "Published ones are named as in hf:NAME or hf:FOLDER.")
        if request.published:
            raise no_published_weights(label)
        architecture = ARCHITECTURES[request.name]
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
        network = getattr(transformers, CLASSES[request.task]).from_config(config, dtype=torch.float32)
        return BuiltLanguage(network)

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

"""Language models by name, their layers, their adapters, and the folders that other tools read."""

from limbeck.models.language.adapters import Adapters, Lora, parse_lora
from limbeck.models.language.create import CreatedLanguageModel, create_language_model, load_tokenizer, usual_task
from limbeck.models.language.folder import WrittenFolder, check_folder, write_folder
from limbeck.models.language.layers import check_places, keep_layers, layers_of
from limbeck.models.language.lora import (
    adapter_state,
    adapters_of,
    has_adapters,
    load_adapter_state,
    merged,
    plain_weights,
    with_lora,
    without_adapters,
)
from limbeck.models.language.prune import PrunedModel, check_not_its_own, prune_layers
from limbeck.models.language.published import published_name
from limbeck.models.language.sizes import context_of, embedding_of, vocabulary_of

__all__ = [
    "Adapters",
    "CreatedLanguageModel",
    "Lora",
    "PrunedModel",
    "WrittenFolder",
    "adapter_state",
    "adapters_of",
    "check_folder",
    "check_not_its_own",
    "check_places",
    "context_of",
    "create_language_model",
    "embedding_of",
    "has_adapters",
    "keep_layers",
    "layers_of",
    "load_adapter_state",
    "load_tokenizer",
    "merged",
    "parse_lora",
    "plain_weights",
    "prune_layers",
    "published_name",
    "usual_task",
    "vocabulary_of",
    "with_lora",
    "without_adapters",
    "write_folder",
]

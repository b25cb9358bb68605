"""The language models that are made here: their configurations, from a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from limbeck.errors import SettingError, check_number, check_whole
from limbeck.models.sources.base import Task

CLASSES: Mapping[Task, str] = {
    "causal": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
    "encoder": "AutoModel",
}
"""The class of transformers that builds a network for a task."""


@dataclass(frozen=True)
class Architecture:
    """How a family is made.

    configure: its sizes to a configuration of transformers, all by keyword; ``vocabulary`` and ``context`` among them.
    tasks: what it can answer with.
    """

    configure: Callable[..., Any]
    tasks: tuple[Task, ...]


def _llama(
    *,
    vocabulary: int,
    context: int = 1024,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    kv_heads: int | None = None,
    feed_forward: int | None = None,
) -> Any:
    """A decoder with rotary positions, RMS norms and SwiGLU (arXiv 2302.13971), embedding and output sharing their weights.

    ``feed_forward`` is 8/3 of the width, up to the next multiple of 8, where it is not given.
    """
    from transformers import LlamaConfig

    _check_sizes(vocabulary=vocabulary, context=context, layers=layers, width=width, heads=heads)
    kv_heads = heads if kv_heads is None else kv_heads
    feed_forward = -(-8 * width // 24) * 8 if feed_forward is None else feed_forward
    _check_sizes(kv_heads=kv_heads, feed_forward=feed_forward)
    if heads % kv_heads:
        raise SettingError(f"kv_heads must divide heads, got kv_heads={kv_heads} and heads={heads}.")
    # Rotary positions turn pairs of numbers.
    if width % (2 * heads):
        raise SettingError(f"width must be a multiple of twice heads, got width={width} and heads={heads}.")
    return LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=context,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=feed_forward,
        tie_word_embeddings=True,
        **_NO_SPECIAL_TOKENS,
    )


def _bert(
    *,
    vocabulary: int,
    context: int = 512,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    feed_forward: int | None = None,
    dropout: float = 0.1,
) -> Any:
    """A BERT (arXiv 1810.04805); ``feed_forward`` is four times the width where it is not given."""
    from transformers import BertConfig

    feed_forward = 4 * width if feed_forward is None else feed_forward
    _check_sizes(vocabulary=vocabulary, context=context, layers=layers, width=width, heads=heads)
    _check_sizes(feed_forward=feed_forward)
    check_number("dropout", dropout, low=0, high=1)
    if width % heads:
        raise SettingError(f"width must be a multiple of heads, got width={width} and heads={heads}.")
    return BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=context,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_NO_SPECIAL_TOKENS,
    )


# Those of the data's tokenizer are written into the configuration afterwards: transformers would make the row of a padding
# token zero and keep it from learning, and padding may be a token that means something else too.
_NO_SPECIAL_TOKENS: Mapping[str, Any] = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
_DECODES: tuple[Task, ...] = ("causal", "classification", "encoder")
_ENCODES: tuple[Task, ...] = ("classification", "encoder")

# The sizes of the small BERTs are those of arXiv 1908.08962, table 1.
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(_llama, _DECODES),
    "llama_tiny": Architecture(partial(_llama, layers=2, width=64, heads=4), _DECODES),
    "llama_small": Architecture(partial(_llama, layers=6, width=256, heads=8), _DECODES),
    "bert": Architecture(_bert, _ENCODES),
    "bert_tiny": Architecture(partial(_bert, layers=2, width=128, heads=2), _ENCODES),
    "bert_mini": Architecture(partial(_bert, layers=4, width=256, heads=4), _ENCODES),
    "bert_small": Architecture(partial(_bert, layers=4, width=512, heads=8), _ENCODES),
}


def _check_sizes(**sizes: object) -> None:
    for name, size in sizes.items():
        check_whole(name, size, low=1)

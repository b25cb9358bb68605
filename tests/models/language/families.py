"""One tiny network of each family that transformers builds from a configuration, with layers that differ."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from limbeck.models.language import create_language_model

LAYERS = 4
_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_GROUPED = {**_SIZES, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 32, "max_position_embeddings": 64}
_NO_TOKENS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
_POSITIONS = {"vocab_size": 32, "max_position_embeddings": 64}

DECODERS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**_GROUPED, **_NO_TOKENS, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(
        **_GROUPED, **_NO_TOKENS, use_sliding_window=True, sliding_window=4, max_window_layers=2
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_GROUPED,
        **_NO_TOKENS,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    ),
    "smollm3": lambda: transformers.SmolLM3Config(**_GROUPED, **_NO_TOKENS, no_rope_layers=[1, 0, 1, 1]),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=16, n_layer=LAYERS, n_head=2, n_positions=64, vocab_size=32, bos_token_id=None, eos_token_id=None
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SIZES, **_POSITIONS, **_NO_TOKENS),
}
ENCODERS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**_SIZES, **_POSITIONS),
    "roberta": lambda: transformers.RobertaConfig(**_SIZES, **_POSITIONS),
    "distilbert": lambda: transformers.DistilBertConfig(
        dim=16, hidden_dim=24, n_layers=LAYERS, n_heads=2, vocab_size=32, max_position_embeddings=64
    ),
}


def decoder(family: str = "llama", seed: int = 0) -> Any:
    """In eval mode, with weights large enough that every layer matters."""
    torch.manual_seed(seed)
    return _loud(transformers.AutoModelForCausalLM.from_config(DECODERS[family]()))


def encoder(family: str = "bert", seed: int = 0) -> Any:
    """A classifier of three classes in eval mode."""
    torch.manual_seed(seed)
    config = ENCODERS[family]()
    config.num_labels = 3
    return _loud(transformers.AutoModelForSequenceClassification.from_config(config))


def small_llama(**more: Any) -> Any:
    """The network of ``llama`` made in place."""
    return create_language_model("llama(layers=2, width=16, heads=2)", task="causal", vocabulary=32, **more).network


def tokens(rows: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 32, (rows, length), generator=torch.Generator().manual_seed(seed))


def _loud(network: Any) -> Any:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.normal_(std=0.4)
    return network.eval()

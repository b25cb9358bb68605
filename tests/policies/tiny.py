"""Tiny random language models, whose next token depends on their prefix, and prompts for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from limbeck.policies import Prompts, Writer
from limbeck.policies.sampling import Sampling

VOCABULARY, CONTEXT, END, PAD = 8, 96, 7, 0


@cache
def network(family: str = "llama", *, seed: int = 0, width: int = 16, vocabulary: int = VOCABULARY) -> Any:
    """One layer, with weights large enough that prefixes matter."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 2 if family == "mistral" else 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.5,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if family == "gpt2":
        sizes = {"n_embd": width, "n_layer": 1, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.5}
        ids = {"bos_token_id": None, "eos_token_id": None}
        return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **sizes, **ids)).eval()
    if family == "mistral":
        return MistralForCausalLM(MistralConfig(**common, sliding_window=4)).eval()
    return LlamaForCausalLM(LlamaConfig(**common)).eval()


def tied(width: int) -> Any:
    """A network whose first and last layer share their weights."""
    model = network(seed=9, width=width)
    config = LlamaConfig.from_dict({**model.config.to_dict(), "tie_word_embeddings": True})
    torch.manual_seed(9)
    return LlamaForCausalLM(config).eval()


class Endless(nn.Module):
    """A model that never ends its text."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits[..., END] = -100.0
        return output


def student(family: str = "llama", **sampling: float) -> Writer:
    return Writer(network(family, seed=1), Sampling(**sampling))


def teacher(family: str = "llama", **sampling: float) -> Writer:
    return Writer(network(family, seed=2, width=24), Sampling(**sampling))


def prompts(*texts: list[int], max_new_tokens: int = 12, **more: Any) -> Prompts:
    """Prompts of different lengths, padded on the left with an id that means something: it would show if it were read."""
    longest = max(map(len, texts))
    tokens = torch.tensor([[5] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[False] * (longest - len(text)) + [True] * len(text) for text in texts])
    more = {"pad": PAD, "end": END, **more}
    return Prompts(tokens, mask, max_new_tokens=max_new_tokens, **more)


def ragged(**more: Any) -> Prompts:
    """Five prompts of 1 to 6 tokens."""
    return prompts([3], [1, 2, 3, 4, 5, 6], [2, 2], [6, 1, 4], [4, 3, 2, 1], **more)


def texts(tokens: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[inside].tolist() for row, inside in zip(tokens, mask, strict=True)]


class Watched:
    """What goes into a model: the shape of each pass."""

    def __init__(self, model: nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._handle = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

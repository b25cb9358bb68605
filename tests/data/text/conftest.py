"""Small texts, and a tokenizer of Hugging Face that is made here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from limbeck.data.text import Example, Message, TextData

END = "<|end|>"
TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>\n{{ turn.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = ["the cat sat on the mat", "how many cats sat?", "two cats sat on two mats.", "12+30=42", "#### 42"]


def prompts(*pairs: tuple[str, str], separator: str = "") -> TextData:
    examples = [Example(index, prompt, completion) for index, (prompt, completion) in enumerate(pairs)]
    return TextData("made", "prompt", examples, None, None, separator=separator)


def chats(*turns: Sequence[tuple[str, str]]) -> TextData:
    examples = [Example(i, messages=tuple(Message(*turn) for turn in each)) for i, each in enumerate(turns)]
    return TextData("made", "chat", examples, None, None)


def documents(*texts: str) -> TextData:
    return TextData("made", "text", [Example(i, completion=text) for i, text in enumerate(texts)], None, None)


def make_tokenizer(*, start: bool = False, pad: bool = True, template: str | None = TEMPLATE) -> Any:
    """Byte-level BPE of about 300 tokens with ``<|end|>``, and ``<s>`` before every text with ``start``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [END, "<s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(WORDS * 3, trainer)
    if start:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token="<pad>" if pad else None)
    made.add_special_tokens({"additional_special_tokens": special[3:]})
    made.chat_template = template
    return made


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data.search import Tokenising
from limbeck.data.search.tokens import tokenizer_digest
from limbeck.data.text import ByteTokenizer
from limbeck.errors import SettingError


def word_tokenizer(*more: str) -> Any:
    """One of Hugging Face that puts [CLS] and [SEP] around a text of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "a", "b", "c", *more]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names)


def test_texts_keep_the_end_token_when_they_are_cut() -> None:
    rows = Tokenising(word_tokenizer(), 4, "query ")(["a", "b c a b", ""])
    assert rows.lengths.tolist() == [4, 4, 3]
    assert rows.cut == 1
    batch = rows.batch(torch.tensor([2, 1]))
    assert batch.tokens.tolist() == [[2, 4, 3, 0], [2, 4, 6, 3]]
    assert batch.attention.tolist() == [[True, True, True, False], [True] * 4]
    assert set(batch.inputs()) == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_plain_tokenizer_serves_too() -> None:
    rows = Tokenising(ByteTokenizer(), 3)(["abcd", "e"])
    assert rows.cut == 1
    assert rows.batch(torch.tensor([0, 1])).tokens.tolist() == [[97, 98, 99], [101, 256, 256]]
    assert "token_type_ids" not in rows.batch(torch.tensor([0])).inputs()


def test_what_decides_the_tokens_is_told() -> None:
    one = Tokenising(word_tokenizer(), 8, "query: ").facts()
    assert one == Tokenising(word_tokenizer(), 8, "query: ").facts()
    assert one["max_length"] == "8"
    assert one["tokenizer"] != Tokenising(word_tokenizer("d"), 8).facts()["tokenizer"]
    used = word_tokenizer()
    Tokenising(used, 5)(["a b c a b c"])
    assert tokenizer_digest(used) == one["tokenizer"]
    assert tokenizer_digest(ByteTokenizer()) == tokenizer_digest(ByteTokenizer()) != one["tokenizer"]
    with pytest.raises(SettingError, match="max_length"):
        Tokenising(ByteTokenizer(), 0)

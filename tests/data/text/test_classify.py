from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data.text import ByteTokenizer, Example, TextData, TokenBatches, encode_classification
from limbeck.data.text import report as reasons
from limbeck.errors import DataError, SettingError

from .conftest import prompts


def labelled(*texts: str, pair: str | None = None) -> TextData:
    examples = [Example(i, text, label=i % 2, pair=pair) for i, text in enumerate(texts)]
    return TextData("made", "classification", examples, None, None, ("bad", "good"))


def bert_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film"])}
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", model_input_names=names)


def test_pairs_are_joined_as_the_tokenizer_does_it() -> None:
    split, told = encode_classification(labelled("good film", "bad", pair="film"), "train", bert_tokenizer(), 9)
    (batch,) = TokenBatches(split, 0, batch_size=2, grouped=False).epoch(0)
    batch = batch[batch.index.argsort()]
    assert batch.inputs.tokens.tolist() == [[1, 4, 6, 2, 6, 2], [1, 5, 2, 6, 2, 0]]
    assert batch.labels.tolist() == [0, 1]
    assert batch.inputs.sequence()["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert "learnt" not in str(told)


def test_too_long_and_empty_ones_are_told() -> None:
    data = labelled("good film film film", "bad", " ", "good film bad")
    split, told = encode_classification(data, "train", bert_tokenizer(), 5)
    assert split.index.tolist() == [1, 3]
    assert told.skipped == {reasons.EMPTY_TEXT: (2,), reasons.TOO_LONG: (0,)}
    split, told = encode_classification(data, "train", bert_tokenizer(), 4, too_long="cut")
    assert split.tokens.tolist() == [1, 4, 6, 2, 1, 5, 2, 1, 4, 6, 2]
    assert told.cut == (0, 3)
    with pytest.raises(DataError, match="no example is left"):
        encode_classification(data, "train", bert_tokenizer(), 2)


def test_a_tokenizer_of_our_own_and_numbers() -> None:
    data = TextData("made", "classification", [Example(0, "ab", label=0.5, pair="c")], None, None)
    split, _ = encode_classification(data, "train", ByteTokenizer(), 9)
    assert bytes(split.tokens.tolist()) == b"ab\nc"
    assert split.labels is not None
    assert (split.labels.dtype, split.types) == (torch.float32, None)
    with pytest.raises(SettingError, match="needs a tokenizer of Hugging Face"):
        encode_classification(data, "train", ByteTokenizer(), 2, too_long="cut")


def test_what_is_no_classification_or_cannot_be_filled_up() -> None:
    with pytest.raises(DataError, match="holds no labels"):
        encode_classification(prompts(("a", "b")), "train", ByteTokenizer(), 9)
    tokenizer = bert_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(SettingError, match="no padding token"):
        encode_classification(labelled("good"), "train", tokenizer, 9)

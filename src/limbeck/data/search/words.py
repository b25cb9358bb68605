"""A tokenizer of the words of a collection, for encoders that are made in place, and how a file tells of a tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from limbeck.errors import DataError, MissingExtraError

_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def word_tokenizer(texts: Iterable[str], *, size: int = 8000) -> Any:
    """A fast tokenizer of Hugging Face that knows the ``size`` words and marks that come most often; others are unknown.

    Case and accents are taken away. Of words that come as often the first of the alphabet is taken, so that the same texts
    make the same tokenizer.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError("transformers", "text", "a tokenizer of words") from error
    normal = normalizers.BertNormalizer()
    divide = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in divide.pre_tokenize_str(normal.normalize_str(text)))
    often = sorted(counts, key=lambda word: (-counts[word], word))[: max(0, size - len(_SPECIAL))]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys([*_SPECIAL.values(), *often]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL["unk_token"]))
    core.normalizer, core.pre_tokenizer = normal, divide
    ends = [(name, vocabulary[name]) for name in (_SPECIAL["cls_token"], _SPECIAL["sep_token"])]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=list(_INPUTS), **_SPECIAL)


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What a file says of a fast tokenizer, so that :func:`tokenizer_of` makes it again: all of it, words and all."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return {
        "kind": "definition",
        "definition": tokenizer.backend_tokenizer.to_str(),
        "special": special,
        "inputs": list(tokenizer.model_input_names),
    }


def tokenizer_of(facts: Mapping[str, Any]) -> Any:
    """The tokenizer that :func:`tokenizer_facts` told of; no code is run.

    Raises:
        DataError: the facts tell of no such tokenizer. MissingExtraError: transformers is not installed.
    """
    try:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError("transformers", "text", "a tokenizer") from error
    try:
        core = Tokenizer.from_str(facts["definition"])
        special, inputs = dict(facts["special"]), list(facts["inputs"])
    except Exception as error:  # the library raises plain exceptions for what it cannot read
        raise DataError(f"the file tells of no tokenizer that can be made again: {error}") from error
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **special)

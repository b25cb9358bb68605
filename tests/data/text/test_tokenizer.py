from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.text import ByteTokenizer, CharacterTokenizer, Example, special_tokens
from limbeck.errors import DataError, SettingError

from .conftest import make_tokenizer


@given(st.text())
def test_bytes_give_the_text_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode(text)
    assert max(tokens, default=0) < 256
    assert tokenizer.decode([*tokens, 257, 256], skip_special_tokens=True) == text
    assert tokenizer.decode([*tokens, 257]) == text + "<end>"


def test_characters() -> None:
    tokenizer = CharacterTokenizer.of([Example(0, "ba", "c"), Example(1, "b", "", pair="d")])
    assert (tokenizer.alphabet, len(tokenizer)) == ("abcd", 6)
    assert tokenizer.decode([*tokenizer.encode("dab"), 1, 0]) == "dab<end><pad>"
    with pytest.raises(DataError, match="character 'x' of 'ax'"):
        tokenizer.encode("ax")
    with pytest.raises(SettingError, match="each once"):
        CharacterTokenizer("aa")


def test_special_tokens() -> None:
    plain = special_tokens(ByteTokenizer())
    assert (plain.pad, plain.end, plain.start, plain.note) == (256, 257, (), "")
    assert special_tokens(make_tokenizer(start=True)).start == (1,)
    without = special_tokens(make_tokenizer(pad=False))
    assert without.pad == without.end == 0
    assert "no padding token" in without.note


def test_special_tokens_that_cannot_be() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(SettingError, match="no end-of-text token"):
        special_tokens(tokenizer)
    with pytest.raises(SettingError, match="pad token is 256, and the network has embeddings for 0 to 255"):
        special_tokens(ByteTokenizer()).check_vocabulary(256)
    strange = ByteTokenizer()
    strange.eos_token_id = 300
    with pytest.raises(SettingError, match="end token is 300"):
        special_tokens(strange)

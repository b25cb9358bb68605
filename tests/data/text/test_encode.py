from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.text import ByteTokenizer, TextData, TokenSplit, encode
from limbeck.data.text import report as reasons
from limbeck.errors import DataError, SettingError

from .conftest import END, TEMPLATE, chats, documents, make_tokenizer, prompts

BYTES = ByteTokenizer()
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


def rows(split: TokenSplit) -> list[list[int]]:
    starts = [0, *split.ends.tolist()]
    return [split.tokens[a:b].tolist() for a, b in pairwise(starts)]


@pytest.mark.parametrize("start", [False, True])
def test_the_prompts_tokens_come_first_and_the_end_token_last(start: bool) -> None:
    tokenizer = make_tokenizer(start=start)
    split, told = encode(prompts(("how many cats", "two cats"), separator=" "), "train", tokenizer, 64)
    (row,) = rows(split)
    prompt = tokenizer.encode("how many cats ", add_special_tokens=False)
    assert row[: split.prompts.item()] == [1] * start + prompt
    assert row[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row[start:-1]) == "how many cats two cats"
    assert (told.kept, told.tokens, told.learnt) == (1, len(row), len(row) - start - len(prompt))


def test_a_tokenizer_that_would_merge_over_the_boundary(tokenizer: Any) -> None:
    pair = ("the c", "at sat")
    alone = tokenizer.encode(pair[0])
    assert tokenizer.encode("the cat sat")[: len(alone)] != alone
    split, told = encode(prompts(pair, ("how ", "many")), "train", tokenizer, 64)
    assert rows(split)[0] == [*alone, *tokenizer.encode(pair[1]), tokenizer.eos_token_id]
    assert any("would merge the end of the prompt" in note for note in told.notes)


def test_a_chat_is_what_the_template_makes_of_it(tokenizer: Any) -> None:
    turns = [(SYSTEM, "the mat"), (USER, "how many cats?"), (ASSISTANT, "two cats.")]
    split, _ = encode(chats(turns), "train", tokenizer, 64)
    (row,) = rows(split)
    messages = [{"role": role, "content": content} for role, content in turns]
    prompt = tokenizer.apply_chat_template(messages[:2], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    assert row[: split.prompts.item()] == prompt
    # The line break that the template puts after the end token is never generated.
    assert row == whole[: len(row)]
    assert tokenizer.decode(whole[len(row) :]) == "\n"
    as_chat, _ = encode(prompts(("how many cats?", "two cats.")), "train", tokenizer, 64, chat=True)
    pair, _ = encode(chats(turns[1:]), "train", tokenizer, 64)
    assert rows(as_chat) == rows(pair)


def test_chats_that_are_left_out(tokenizer: Any) -> None:
    data = chats(
        [(USER, "how many"), (ASSISTANT, "two")],
        [(USER, "how many")],
        [(USER, "how many"), (ASSISTANT, " ")],
        [(ASSISTANT, "two")],
        [],
    )
    split, told = encode(data, "train", tokenizer, 64)
    assert split.index.tolist() == [0]
    assert told.skipped == {reasons.NO_ANSWER: (1, 4), reasons.EMPTY: (2,), reasons.NO_PROMPT: (3,)}
    split, told = encode(data, "train", tokenizer, 64, prompts_only=True)
    assert split.index.tolist() == [0, 1, 2]
    assert rows(split)[0] == rows(split)[1] == rows(split)[2]
    assert told.skipped == {reasons.NO_PROMPT: (3, 4)}


def test_templates_that_are_refused() -> None:
    data = chats([(USER, "how many"), (ASSISTANT, "two")])
    with pytest.raises(SettingError, match="has none"):
        encode(data, "train", make_tokenizer(template=None), 64)
    with pytest.raises(SettingError, match="has none"):
        encode(data, "train", BYTES, 64)
    thinking = make_tokenizer(template=TEMPLATE.replace("<|assistant|>\n{%", "<|assistant|>\nHm. {%"))
    with pytest.raises(DataError, match=r"does not put the prompt first .*example 0.*'Hm\. '.*'two"):
        encode(data, "train", thinking, 64)
    strict = make_tokenizer(template="{{ raise_exception('no turns here') }}")
    with pytest.raises(DataError, match="refuses example 0: no turns here"):
        encode(data, "train", strict, 64)


def test_too_long_is_skipped_or_cut_and_always_told() -> None:
    data = prompts(("ab", "cd"), ("ab", "cdefgh"), ("abcdefgh", "c"), ("a", " "), ("", "xyz"))
    split, told = encode(data, "train", BYTES, 6)
    assert split.index.tolist() == [0, 4]
    assert split.prompts.tolist() == [2, 0]
    assert told.skipped == {reasons.EMPTY: (3,), reasons.TOO_LONG: (1, 2)}
    split, told = encode(data, "train", BYTES, 6, too_long="cut")
    assert rows(split)[1] == list(b"abcdef")
    assert (told.cut, told.skipped) == ((1,), {reasons.EMPTY: (3,), reasons.PROMPT_TOO_LONG: (2,)})
    assert (told.kept, told.learnt, told.longest) == (3, 3 + 4 + 3, 6)
    text = str(told)
    assert "3 of 5 examples" in text
    assert "skipped 1 example (index 2): the prompt alone fills max_length" in text
    assert "cut at max_length: 1 example (index 1)" in text


@given(
    st.lists(st.text(st.characters(codec="ascii"), min_size=1).filter(str.strip), min_size=1, max_size=4),
    st.integers(2, 9),
)
def test_a_document_is_split_and_every_token_is_predicted_once(texts: list[str], max_length: int) -> None:
    split, told = encode(documents(*texts), "train", BYTES, max_length)
    pieces = rows(split)
    assert max(map(len, pieces)) <= max_length
    whole = [[*text.encode(), 257] for text in texts]
    joined: list[list[int]] = []
    for piece in pieces:
        if joined and joined[-1][-1] != 257:
            assert piece[0] == joined[-1][-1]
            joined[-1] += piece[1:]
        else:
            joined.append(piece)
    assert joined == whole
    assert told.learnt == sum(map(len, whole)) - len(whole)
    assert len(set(split.index.tolist())) == len(split)
    assert (told.kept, told.rows) == (len(texts), len(pieces))


def test_an_end_token_in_the_text_loses_nothing(tokenizer: Any) -> None:
    split, told = encode(prompts(("the cat", f" sat{END} on the mat")), "train", tokenizer, 64)
    assert tokenizer.decode(rows(split)[0]) == f"the cat sat{END} on the mat{END}"
    assert "1 completions hold the end token before their end, where generating would stop" in told.notes


def test_the_missing_padding_token_is_told() -> None:
    _, told = encode(prompts(("the", " cat")), "train", make_tokenizer(pad=False), 64)
    assert "no padding token; its end token 0 fills rows up" in str(told)


def test_what_cannot_be_tokenised() -> None:
    pair = prompts(("ab", "cd"))
    with pytest.raises(DataError, match=r"no example is left. 0 of 1 .*\n?.*longer than max_length"):
        encode(pair, "train", BYTES, 3)
    with pytest.raises(SettingError, match="too_long"):
        encode(pair, "train", BYTES, 9, too_long="split")
    with pytest.raises(SettingError, match="max_length"):
        encode(pair, "train", BYTES, 1)
    with pytest.raises(DataError, match="nothing to generate from"):
        encode(documents("a"), "train", BYTES, 9, prompts_only=True)
    with pytest.raises(SettingError, match="chat=True is for prompts"):
        encode(documents("a"), "train", BYTES, 9, chat=True)
    with pytest.raises(DataError, match="encode_classification"):
        encode(TextData("c", "classification", pair.train, None, None, ("a", "b")), "train", BYTES, 9)


def test_tokens_that_the_network_does_not_know() -> None:
    split, _ = encode(prompts(("ab", "cd"), ("e", "é")), "train", BYTES, 9)
    split.check_vocabulary(258)
    with pytest.raises(SettingError, match="end token"):
        split.check_vocabulary(257)
    small = TokenSplit(split.tokens, split.ends, split.prompts, split.index, type(split.special)(0, 1), 200)
    small.tokens[split.tokens == 257] = 1
    with pytest.raises(DataError, match="example 1 has the token 195, and the network has embeddings for 0 to 127"):
        small.check_vocabulary(128)
    assert split.lengths.dtype == torch.int64

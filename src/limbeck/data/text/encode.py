"""Examples to tokens: where a prompt ends, what is learnt, and what becomes of examples that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from limbeck.data.text import report
from limbeck.data.text.chat import as_chat, chat_halves
from limbeck.data.text.examples import Example, TextData
from limbeck.data.text.report import Report, told_of
from limbeck.data.text.tokenizer import SpecialTokens, Tokenizer, special_tokens
from limbeck.data.text.tokens import TokenSplit, ends_of, flat
from limbeck.errors import DataError, SettingError, check_choice, check_whole

TooLong = Literal["skip", "cut", "split"]

_CHUNK = 1000


@dataclass
class _Rows:
    """What is gathered while the examples of a split are gone through."""

    tokens: list[list[int]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    skipped: dict[str, list[int]] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, index: int, tokens: list[int], prompt: int) -> None:
        self.tokens.append(tokens)
        self.prompts.append(prompt)
        self.index.append(index)

    def skip(self, reason: str, index: int) -> None:
        self.skipped.setdefault(reason, []).append(index)


def encode(
    data: TextData,
    split: str,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    too_long: TooLong | None = None,
    chat: bool | None = None,
    prompts_only: bool = False,
) -> tuple[TokenSplit, Report]:
    """The rows of one split, and what became of its examples.

    A prompt is tokenised alone, as it is when a completion is generated. Where the tokens of prompt and completion together
    begin with it, the rest of them is the completion; where the tokenizer merges over the boundary, the completion is
    tokenised alone too, and the report counts that. So the tokens of the prompt are the first of the row in every case, and
    what the tokenizer puts before every text (BOS) is before them. The end token is the last one of every row that is whole.

    A chat goes through the tokenizer's template: the prompt is all but the last message, with what the template puts before
    an answer. What it puts after the end token is left out, since it is never generated. Of a chat with several answers the
    last one is learnt.

    max_length: tokens of the longest row that is kept, special ones counted.
    too_long: ``skip`` leaves longer examples out, ``cut`` cuts the end of their completion (an example whose prompt fills
        max_length is left out), and ``split`` makes several rows of a document: each begins with the last token of the one
        before, so that every token but the first is predicted once; what the tokenizer puts before a text is before the first
        row alone. None for ``split`` of data of kind text, else ``skip``.
    chat: whether prompts and completions go through the chat template too, as what user and assistant say; None and False
        for messages alone.
    prompts_only: keep prompts alone, to generate from; whatever completion there is does not count.

    Raises:
        SettingError: a setting is out of range or does not fit the data, or the tokenizer has no end token.
        DataError: no example is left, the data is not of a kind that is asked for here, or the chat template does not put
            the prompt first.
    """
    policy = _policy(data, max_length, too_long, chat, prompts_only)
    special = special_tokens(tokenizer)
    rows = _Rows(notes=[special.note] * bool(special.note))
    examples = data.split(split)
    texts = _texts(data, examples, tokenizer, chat, prompts_only, rows)
    start = [] if data.kind == "chat" or chat else list(special.start)
    if prompts_only:
        _add_prompts(texts, tokenizer, start, max_length, rows)
    else:
        _add_completions(texts, tokenizer, start, special.end, max_length, policy, rows)
    if rows.split:
        rows.index = list(range(len(rows.tokens)))
    found = _joined(rows, special, len(tokenizer))
    learnt = None if prompts_only else sum(len(t) - max(p, 1) for t, p in zip(rows.tokens, rows.prompts, strict=True))
    told = told_of(rows.tokens, len(examples), max_length, learnt, rows.skipped, rows.cut, rows.split, rows.notes)
    if not rows.tokens:
        raise DataError(f"{data.name} {split}: no example is left. {told}")
    return found, told


def _policy(
    data: TextData, max_length: int, too_long: TooLong | None, chat: bool | None, prompts_only: bool
) -> TooLong:
    check_whole("max_length", max_length, low=2)
    if data.kind == "classification":
        raise DataError(f"{data.name} is a classification; tokenise it with encode_classification.")
    if data.kind == "text" and chat:
        raise SettingError(
            f"{data.name} holds text to be modelled as it stands; chat=True is for prompts and messages."
        )
    if prompts_only and data.kind == "text":
        raise DataError(f"{data.name} holds text without prompts, so that there is nothing to generate from.")
    if too_long is None:
        return "split" if data.kind == "text" else "skip"
    accepted = ("skip",) if prompts_only else get_args(TooLong) if data.kind == "text" else ("skip", "cut")
    check_choice("too_long", too_long, accepted)
    return too_long


Text = tuple[int, str, str]
"""Index, prompt and completion of an example."""


def _texts(
    data: TextData,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    chat: bool | None,
    prompts_only: bool,
    rows: _Rows,
) -> list[Text]:
    if data.kind == "chat" or chat:
        found, skipped = chat_halves(tokenizer, map(as_chat, examples), prompts_only)
        for reason, index in skipped:
            rows.skip(reason, index)
        return found
    texts: list[Text] = []
    for example in examples:
        if prompts_only and not example.prompt.strip():
            rows.skip(report.NO_PROMPT, example.index)
        elif not prompts_only and not example.completion.strip():
            rows.skip(report.EMPTY_TEXT if data.kind == "text" else report.EMPTY, example.index)
        else:
            separator = data.separator if example.prompt else ""
            texts.append((example.index, example.prompt + separator, example.completion))
    return texts


def _add_prompts(texts: Sequence[Text], tokenizer: Tokenizer, start: list[int], max_length: int, rows: _Rows) -> None:
    prompts = encode_all(tokenizer, [prompt for _, prompt, _ in texts])
    for (index, _, _), tokens in zip(texts, prompts, strict=True):
        if len(start) + len(tokens) > max_length:
            rows.skip(report.TOO_LONG, index)
        else:
            rows.add(index, start + tokens, len(start) + len(tokens))


def _add_completions(
    texts: Sequence[Text],
    tokenizer: Tokenizer,
    start: list[int],
    end: int,
    max_length: int,
    policy: TooLong,
    rows: _Rows,
) -> None:
    prompts, completions = _halves(texts, tokenizer, rows)
    ended = _ended(completions, tokenizer, end, rows)
    for (index, _, _), prompt, completion in zip(texts, prompts, ended, strict=True):
        before = start + prompt
        tokens = before + completion
        if completion == [end]:
            rows.skip(report.EMPTY, index)
        elif len(tokens) <= max_length:
            rows.add(index, tokens, len(before))
        elif policy == "skip":
            rows.skip(report.TOO_LONG, index)
        elif policy == "split":
            rows.split.append(index)
            for first in range(0, len(tokens) - 1, max_length - 1):
                rows.add(index, tokens[first : first + max_length], 0)
        elif len(before) >= max_length:
            rows.skip(report.PROMPT_TOO_LONG, index)
        else:
            rows.cut.append(index)
            rows.add(index, tokens[:max_length], len(before))


def _halves(texts: Sequence[Text], tokenizer: Tokenizer, rows: _Rows) -> tuple[list[list[int]], list[list[int]]]:
    prompts = encode_all(tokenizer, [prompt for _, prompt, _ in texts])
    completions = encode_all(tokenizer, [prompt + completion for _, prompt, completion in texts])
    merged = []
    for place, prompt in enumerate(prompts):
        if completions[place][: len(prompt)] == prompt:
            completions[place] = completions[place][len(prompt) :]
        else:
            merged.append(place)
    for place, tokens in zip(merged, encode_all(tokenizer, [texts[place][2] for place in merged]), strict=True):
        completions[place] = tokens
    if merged:
        rows.notes.append(
            f"in {len(merged):,} examples the tokenizer would merge the end of the prompt with the completion; both are "
            f"tokenised alone there"
        )
    return prompts, completions


def _ended(completions: Sequence[list[int]], tokenizer: Tokenizer, end: int, rows: _Rows) -> list[list[int]]:
    """The completions with the end token last, added where it is not; the white space of a chat template after it goes."""
    inside = 0
    found = []
    for tokens in completions:
        last = len(tokens) - tokens[::-1].index(end) if end in tokens else 0
        rest = tokens[last:]
        whole = tokens[:last] if last and (not rest or not tokenizer.decode(rest).strip()) else [*tokens, end]
        inside += end in whole[:-1]
        found.append(whole)
    if inside:
        rows.notes.append(f"{inside:,} completions hold the end token before their end, where generating would stop")
    return found


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without special ones around it."""
    if not (callable(tokenizer) and getattr(tokenizer, "is_fast", False)):
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    quick: Any = tokenizer
    found: list[list[int]] = []
    for first in range(0, len(texts), _CHUNK):
        # verbose would warn of texts that are longer than the network's context, which is max_length's matter.
        found += quick(list(texts[first : first + _CHUNK]), add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _joined(rows: _Rows, special: SpecialTokens, vocabulary: int) -> TokenSplit:
    return TokenSplit(
        tokens=flat(rows.tokens),
        ends=ends_of(rows.tokens),
        prompts=torch.tensor(rows.prompts, dtype=torch.int64),
        index=torch.tensor(rows.index, dtype=torch.int64),
        special=special,
        vocabulary=vocabulary,
    )

"""Texts with labels to tokens, for networks that classify sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from limbeck.data.text import report
from limbeck.data.text.encode import encode_all
from limbeck.data.text.examples import Example, TextData
from limbeck.data.text.report import Report, told_of
from limbeck.data.text.tokenizer import SpecialTokens, Tokenizer
from limbeck.data.text.tokens import TokenSplit, ends_of, flat
from limbeck.errors import DataError, SettingError, check_choice, check_whole

_TYPES = "token_type_ids"


def encode_classification(
    data: TextData, split: str, tokenizer: Tokenizer, max_length: int, *, too_long: str = "skip"
) -> tuple[TokenSplit, Report]:
    """The rows of one split of a classification, and what became of its examples.

    Text and pair are joined as the tokenizer does it, with its special tokens around them; a tokenizer of limbeck's own
    puts a line break between them.

    too_long: ``skip`` leaves examples of more than max_length tokens out; ``cut`` cuts the end of the longer text of a pair,
    and needs a tokenizer of Hugging Face.

    Raises:
        SettingError: a setting is out of range, or the tokenizer has no token for padding.
        DataError: no example is left, or the data is no classification.
    """
    check_whole("max_length", max_length, low=2)
    check_choice("too_long", too_long, ("skip", "cut"))
    if data.kind != "classification":
        raise DataError(f"{data.name} holds no labels; tokenise it with encode.")
    examples, special = data.split(split), _special(tokenizer)
    skipped: dict[str, list[int]] = {}
    kept = _sorted_out(examples, [bool(example.prompt.strip()) for example in examples], report.EMPTY_TEXT, skipped)
    rows, types = _rows(tokenizer, kept)
    fits = [len(row) <= max_length for row in rows]
    cut = [example.index for example, fit in zip(kept, fits, strict=True) if not fit]
    if cut and too_long == "cut":
        rows, types = _rows(tokenizer, kept, max_length)
    elif cut:
        kept = _sorted_out(kept, fits, report.TOO_LONG, skipped)
        rows, types = (
            [row for row, fit in zip(each, fits, strict=True) if fit] if each else [] for each in (rows, types)
        )
        cut = []
    told = told_of(rows, len(examples), max_length, None, skipped, cut, (), [special.note] * bool(special.note))
    if not rows:
        raise DataError(f"{data.name} {split}: no example is left. {told}")
    labels = torch.tensor([e.label for e in kept], dtype=torch.int64 if data.classes else torch.float32)
    index = torch.tensor([example.index for example in kept], dtype=torch.int64)
    none = torch.zeros(len(rows), dtype=torch.int64)
    found = flat(types, torch.int8) if types else None
    return TokenSplit(flat(rows), ends_of(rows), none, index, special, len(tokenizer), labels, found), told


def _sorted_out(
    examples: Sequence[Example], keep: Sequence[bool], reason: str, skipped: dict[str, list[int]]
) -> list[Example]:
    left_out = [example.index for example, stays in zip(examples, keep, strict=True) if not stays]
    if left_out:
        skipped[reason] = left_out
    return [example for example, stays in zip(examples, keep, strict=True) if stays]


def _special(tokenizer: Tokenizer) -> SpecialTokens:
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    filled = end if pad is None else pad
    if not isinstance(filled, int):
        raise SettingError("the tokenizer has no padding token; set one, as with tokenizer.pad_token = '[PAD]'.")
    note = (
        "" if pad is not None else f"the tokenizer has no padding token; its end token {end} fills rows up, masked out"
    )
    special = SpecialTokens(filled, filled if end is None else end, (), note)
    special.check_vocabulary(len(tokenizer))
    return special


def _rows(
    tokenizer: Any, examples: Sequence[Example], limit: int | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens and types of each example, at most ``limit`` of them; no types where the tokenizer tells none."""
    paired = bool(examples) and examples[0].pair is not None
    if not callable(tokenizer):
        if limit is not None:
            raise SettingError("too_long='cut' needs a tokenizer of Hugging Face; use 'skip', or a larger max_length.")
        return encode_all(tokenizer, [f"{e.prompt}\n{e.pair}" if paired else e.prompt for e in examples]), []
    if not examples:
        return [], []
    texts = [[e.prompt for e in examples], *([[e.pair for e in examples]] * paired)]
    settings = {"verbose": False} if limit is None else {"truncation": True, "max_length": limit}
    found = tokenizer(*texts, **settings)
    return found["input_ids"], found.get(_TYPES, [])

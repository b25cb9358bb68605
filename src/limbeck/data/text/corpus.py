"""A data set of text as tokens: what a run is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limbeck.data.text.classify import encode_classification
from limbeck.data.text.encode import TooLong, encode
from limbeck.data.text.examples import Example, TextData
from limbeck.data.text.load import ARITHMETIC
from limbeck.data.text.readers import FORMATS, is_table_folder
from limbeck.data.text.report import Report
from limbeck.data.text.tokenizer import ByteTokenizer, CharacterTokenizer, Tokenizer
from limbeck.data.text.tokens import TokenSplit
from limbeck.errors import SettingError

PREFIX = "text:"
BYTES, CHARACTERS = "bytes", "characters"
_SPLITS = ("train", "val", "test")


def text_of(spec: str) -> str | None:
    """The text data that a data setting means, as ``load_text`` takes it; None where it means something else.

    Text is ``arithmetic(…)``, a file that ``load_text`` reads, a folder with one for training, and anything after ``text:``.
    """
    if spec.startswith(PREFIX):
        return spec.removeprefix(PREFIX)
    path = Path(spec).expanduser()
    if ARITHMETIC.fullmatch(spec) or path.suffix.lower() in FORMATS:
        return spec
    return spec if path.is_dir() and is_table_folder(path) else None


@dataclass(frozen=True)
class TokenData:
    """A data set of text as tokens.

    text: the examples. tokenizer: theirs. tokenizer_facts: what a file says of it, so that it can be made again, as
    :func:`tokenizer_of_facts` does. train, val, test: rows. reports: what became of the examples of each split, by its name.
    max_length: tokens of the longest row.
    """

    text: TextData
    tokenizer: Tokenizer
    tokenizer_facts: Mapping[str, Any]
    train: TokenSplit
    val: TokenSplit | None
    test: TokenSplit | None
    reports: Mapping[str, Report]
    max_length: int

    @property
    def name(self) -> str:
        """The data set's."""
        return self.text.name

    @property
    def task(self) -> Literal["causal", "classification"]:
        """What networks do with it."""
        return "classification" if self.text.kind == "classification" else "causal"

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return len(self.tokenizer)


def tokenised(
    text: TextData,
    tokenizer: Tokenizer,
    tokenizer_facts: Mapping[str, Any],
    *,
    max_length: int,
    too_long: TooLong | None = None,
    chat: bool | None = None,
) -> TokenData:
    """All splits as tokens; see :func:`encode` and :func:`encode_classification`.

    Raises:
        SettingError: a setting is out of range or does not fit the data, or the tokenizer lacks a token.
        DataError: no example of a split is left, or labels are numbers, which are not learnt yet.
    """
    if text.kind == "classification" and not text.classes:
        raise SettingError(f"{text.name} has numbers for labels; classes are learnt, and numbers are not regressed on.")
    splits: dict[str, TokenSplit | None] = {}
    reports = {}
    for name in _SPLITS:
        if getattr(text, name) is None:
            splits[name] = None
        elif text.kind == "classification":
            splits[name], reports[name] = encode_classification(
                text, name, tokenizer, max_length, too_long=too_long or "skip"
            )
        else:
            splits[name], reports[name] = encode(text, name, tokenizer, max_length, too_long=too_long, chat=chat)
    train = splits["train"]
    assert train is not None
    return TokenData(text, tokenizer, tokenizer_facts, train, splits["val"], splits["test"], reports, max_length)


def small_tokenizer(kind: str, examples: Iterable[Example] = ()) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of ``characters``, those of the examples, or of ``bytes``, with its facts."""
    if kind == BYTES:
        return ByteTokenizer(), {"kind": BYTES}
    characters = CharacterTokenizer.of(examples)
    return characters, {"kind": CHARACTERS, "alphabet": characters.alphabet}


def tokenizer_of_facts(facts: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a file tells of; None where it is one of a network's folder, named in ``facts["spec"]``."""
    if facts.get("kind") == BYTES:
        return ByteTokenizer()
    return CharacterTokenizer(str(facts["alphabet"])) if facts.get("kind") == CHARACTERS else None

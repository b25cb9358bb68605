"""What tokenising needs of a tokenizer, its special tokens, and two small tokenizers that need no download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from limbeck.data.text.examples import Example
from limbeck.errors import DataError, SettingError


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of Hugging Face have it.

    One that is fast (``is_fast``) and can be called on a list of texts is; a ``chat_template`` with
    ``apply_chat_template`` makes chats possible.
    """

    @property
    def eos_token_id(self) -> Any:
        """The token that ends a text, None where there is none."""
        ...

    @property
    def pad_token_id(self) -> Any:
        """The token that fills rows up, None where there is none."""
        ...

    def __len__(self) -> int:
        """How many tokens there are."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text, with those that the tokenizer puts around every text, or without."""
        ...

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False) -> Any:
        """The text of tokens."""
        ...


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that are put around texts.

    pad: fills rows up; batches say where in ``attention``, so that it may be a token that means something else too.
    end: ends a completion. start: what the tokenizer puts before every text, often nothing.
    note: a choice that was made for the user, in words; empty where none was.
    """

    pad: int
    end: int
    start: tuple[int, ...] = ()
    note: str = ""

    def check_vocabulary(self, size: int) -> None:
        """Raise SettingError unless all are below ``size``, the rows of a network's embedding of tokens."""
        for name, token in (("pad", self.pad), ("end", self.end), *(("start", token) for token in self.start)):
            if not 0 <= token < size:
                raise SettingError(
                    f"the tokenizer's {name} token is {token}, and the network has embeddings for 0 to {size - 1}; use the "
                    "tokenizer that belongs to the network."
                )


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens of a tokenizer; where it has no token for padding, the one that ends a text takes its place.

    Raises:
        SettingError: no token ends a text, or a special token is outside of the tokenizer's vocabulary.
    """
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if not isinstance(end, int):
        raise SettingError(
            "the tokenizer has no end-of-text token (eos_token), without which no completion ends; set one, as with "
            "tokenizer.eos_token = '</s>'."
        )
    note = (
        "" if pad is not None else f"the tokenizer has no padding token; its end token {end} fills rows up, masked out"
    )
    found = SpecialTokens(end if pad is None else pad, end, _start(tokenizer), note)
    found.check_vocabulary(len(tokenizer))
    return found


def _start(tokenizer: Tokenizer) -> tuple[int, ...]:
    probe = "1"
    plain, whole = (tokenizer.encode(probe, add_special_tokens=special) for special in (False, True))
    for begin in range(len(whole) - len(plain) + 1):
        if whole[begin : begin + len(plain)] == plain:
            return tuple(whole[:begin])
    raise SettingError("the tokenizer changes the tokens of a text when it adds special tokens; limbeck cannot use it.")


class CharacterTokenizer:
    """One token a character, after 0 for padding and 1 for the end of a text.

    alphabet: the characters, each once.

    >>> CharacterTokenizer("0123456789+-=").encode("1+2=")
    [3, 12, 4, 14]
    """

    pad_token_id = 0
    eos_token_id = 1
    _FIRST = 2

    def __init__(self, alphabet: str) -> None:
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise SettingError(f"alphabet must have at least one character, and each once; got {alphabet!r:.200}.")
        self.alphabet = alphabet
        self._tokens = {character: token for token, character in enumerate(alphabet, start=self._FIRST)}

    @classmethod
    def of(cls, examples: Iterable[Example]) -> CharacterTokenizer:
        """One whose alphabet is all characters of the examples, sorted."""
        texts = chain.from_iterable(
            (one.prompt, one.completion, one.pair or "", *(turn.content for turn in one.messages)) for one in examples
        )
        return cls("".join(sorted(set(chain.from_iterable(texts)))))

    def __len__(self) -> int:
        return self._FIRST + len(self.alphabet)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text. Raises DataError on a character that is not in the alphabet."""
        try:
            return [self._tokens[character] for character in text]
        except KeyError as error:
            raise DataError(f"the character {error} of {text!r:.100} is not in the tokenizer's alphabet.") from None

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of tokens; padding and end are nothing, or ``<pad>`` and ``<end>`` where they are not skipped."""
        special = ("", "") if skip_special_tokens else ("<pad>", "<end>")
        return "".join(special[t] if t < self._FIRST else self.alphabet[t - self._FIRST] for t in map(int, tokens))


class ByteTokenizer:
    """One token a byte of UTF-8, 0 to 255, then 256 for padding and 257 for the end of a text."""

    pad_token_id = 256
    eos_token_id = 257

    def __len__(self) -> int:
        return 258

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of tokens; bytes that are no UTF-8 become �, padding and end nothing or ``<pad>`` and ``<end>``."""
        special = {self.pad_token_id: b"<pad>", self.eos_token_id: b"<end>"}
        found = (bytes([t]) if t < 256 else b"" if skip_special_tokens else special[t] for t in map(int, tokens))
        return b"".join(found).decode("utf-8", "replace")

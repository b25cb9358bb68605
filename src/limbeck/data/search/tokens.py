"""Texts to rows of tokens, and rows to what an encoder takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limbeck.data.text.tokens import ends_of, flat
from limbeck.errors import check_whole

_CHUNK = 1000
_PROBE = "Queries, documents: 42 états, naïve Ωmega 東京 don't."


@dataclass(frozen=True)
class TextBatch:
    """R texts of at most L tokens, as an encoder takes them.

    tokens: (R, L) int64. attention: (R, L) bool, False where a row is filled up. types: (R, L) int64, as some tokenizers
    give them.
    """

    tokens: Tensor
    attention: Tensor
    types: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def inputs(self) -> dict[str, Tensor]:
        """What an encoder of Hugging Face or sentence-transformers takes."""
        found = {"input_ids": self.tokens, "attention_mask": self.attention.long()}
        return found if self.types is None else {**found, "token_type_ids": self.types}

    def map(self, function: Callable[[Tensor], Tensor]) -> TextBatch:
        """A copy with ``function`` applied to every tensor."""
        types = None if self.types is None else function(self.types)
        return TextBatch(function(self.tokens), function(self.attention), types)

    def to(self, device: torch.device | str) -> TextBatch:
        """The batch on another device; the copy does not wait for the device."""
        return self.map(lambda value: value.to(device, non_blocking=True))


@dataclass(frozen=True)
class TokenRows:
    """N texts as tokens, one after the other.

    tokens: (T,) int32. ends: (N,) int64, where each text ends. pad: what rows are filled up with. types: (T,) int8 or None.
    cut: how many texts were longer than allowed and lost their end.
    """

    tokens: Tensor
    ends: Tensor
    pad: int
    types: Tensor | None = None
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Tensor:
        """(N,) int64 tokens of each text."""
        return self.ends.diff(prepend=self.ends.new_zeros(1))

    def some(self, places: Tensor) -> TokenRows:
        """The texts at places (R,) int64 alone."""
        lengths = self.lengths[places]
        chosen = torch.cat([torch.arange(a, b) for a, b in self._spans(places)])
        types = None if self.types is None else self.types[chosen]
        return TokenRows(self.tokens[chosen], lengths.cumsum(0), self.pad, types)

    def _spans(self, places: Tensor) -> list[tuple[int, int]]:
        ends = self.ends[places]
        return list(zip((ends - self.lengths[places]).tolist(), ends.tolist(), strict=True))

    def batch(self, places: Tensor) -> TextBatch:
        """The texts at places (R,) int64, filled up on the right."""
        spans = self._spans(places)
        tokens = pad_sequence([self.tokens[a:b].long() for a, b in spans], batch_first=True, padding_value=self.pad)
        attention = torch.arange(tokens.shape[1]) < self.lengths[places][:, None]
        types = None
        if self.types is not None:
            types = pad_sequence([self.types[a:b].long() for a, b in spans], batch_first=True)
        return TextBatch(tokens, attention, types)


@dataclass(frozen=True)
class Tokenising:
    """How the texts of one kind become tokens: queries and documents often have other prompts.

    tokenizer: of Hugging Face, or with the same ``encode``. max_length: tokens of the longest row, special ones counted; the
    end of a longer text is cut off, as encoders do. prompt: is put before every text.
    """

    tokenizer: Any
    max_length: int
    prompt: str = ""

    def __post_init__(self) -> None:
        check_whole("max_length", self.max_length, low=1)

    def __call__(self, texts: Sequence[str]) -> TokenRows:
        """The rows of some texts."""
        ids: list[list[int]] = []
        types: list[list[int]] = []
        cut = 0
        for first in range(0, len(texts), _CHUNK):
            found = self._encoded([self.prompt + text for text in texts[first : first + _CHUNK]])
            ids += [row[: self.max_length] for row in found["input_ids"]]
            types += found.get("token_type_ids", [])
            cut += found["cut"]
        return TokenRows(flat(ids), ends_of(ids), self._pad(), flat(types, torch.int8) if types else None, cut)

    def _encoded(self, texts: list[str]) -> dict[str, Any]:
        if not callable(self.tokenizer):
            rows = [self.tokenizer.encode(text) for text in texts]
            return {"input_ids": rows, "cut": sum(len(row) > self.max_length for row in rows)}
        # A tokenizer cuts before it adds what stands at the end, which a cut of ours would take away.
        short = self.tokenizer(texts, truncation="longest_first", max_length=self.max_length)
        full = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        cut = sum(len(row) > self.max_length for row in full)
        kinds = {name: short[name] for name in ("input_ids", "token_type_ids") if name in short}
        return {**kinds, "cut": cut}

    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def facts(self) -> dict[str, str]:
        """What decides the tokens of a text, for the key of a cache: a digest of the tokenizer, the length, the prompt."""
        return {
            "tokenizer": tokenizer_digest(self.tokenizer),
            "max_length": str(self.max_length),
            "prompt": self.prompt,
        }


def tokenizer_digest(tokenizer: Any) -> str:
    """16 hexadecimal digits over all that a fast tokenizer is made of, but for padding and truncation; of others over their
    size and their tokens for a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        said = json.dumps([len(tokenizer), tokenizer.encode(_PROBE)])
    else:
        made = json.loads(backend.to_str())
        # Calls leave their settings of both behind in it.
        said = json.dumps({name: value for name, value in made.items() if name not in ("padding", "truncation")})
    return hashlib.sha256(said.encode()).hexdigest()[:16]

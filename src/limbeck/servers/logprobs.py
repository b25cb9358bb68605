"""A server's log-probabilities of tokens as logits: those that it tells, and the mass of the rest spread evenly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from limbeck.data.text.tokenizer import Tokenizer
from limbeck.errors import TeacherError
from limbeck.servers.client import Client
from limbeck.servers.spec import Server

_ID = "token_id:"
# Of a probability that is 0, finite as in teachers/_codecs.py.
_NOTHING = -100.0
# Servers round what they tell.
_ABOVE_ONE = 1.01


class Scorer:
    """Asks a server what it thinks of texts that exist: log-probabilities of the most likely tokens at each position.

    Args:
        client: to the server.
        tokenizer: of the student, which must be the server's: texts are sent as its token ids. A server that tells tokens by
            their ids (vLLM) is taken at its word; of others, tokens are known by their texts where a text is of one token
            alone.
        vocabulary: V.

    Attributes:
        positions: that were told. fewer: of them, those with fewer log-probabilities than were asked for. unknown: tokens that
            the server named and the tokenizer has not, or has several of; their probability is with the rest.
    """

    def __init__(self, client: Client, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._client, self._tokenizer, self._vocabulary = client, tokenizer, vocabulary
        self.positions = self.fewer = self.unknown = 0
        self._counting = Lock()

    @property
    def server(self) -> Server:
        """Which is asked."""
        return self._client.server

    def each(self, texts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """:meth:`logits` of several texts, in order; they are asked for side by side."""
        return self._client.each(self.logits, texts)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """(L, V) float32 log-probabilities of the token after each of a text's L; 0 after the last one.

        Raises:
            TeacherError: the server does not tell log-probabilities of prompts, reads the text as other tokens, or says
                what is no log-probability.
        """
        asked = self._client.server.logprobs
        choice = self._client.completion(
            {
                "prompt": list(tokens),
                "echo": True,
                "logprobs": asked,
                # Not 0, which some servers refuse; what it writes is not read.
                "max_tokens": 1,
                "temperature": 0,
                "return_tokens_as_token_ids": True,
            }
        )
        told = choice.get("logprobs")
        each = told.get("top_logprobs") if isinstance(told, dict) else None
        if not isinstance(told, dict) or not isinstance(each, list) or len(each) < len(tokens):
            raise TeacherError(
                f"the server {self._client.server.url} tells no log-probabilities of prompts (echo with logprobs), which "
                "objectives on logits need; let it write the answers instead, with --policy teacher and --objective ce."
            )
        self._check_same(tokens, told.get("tokens"))
        found = torch.zeros(len(tokens), self._vocabulary)
        for place, following in enumerate(each[1 : len(tokens)]):
            found[place] = self._row(following, asked)
        return found

    def _check_same(self, tokens: Sequence[int], read: Any) -> None:
        if not isinstance(read, list) or len(read) not in (len(tokens), len(tokens) + 1):
            count = len(read) if isinstance(read, list) else 0
            raise TeacherError(
                f"the server {self._client.server.url} read {count} tokens where {len(tokens)} were sent: its tokenizer is "
                "another than the student's. Name the server's with --tokenizer, and take a student that has it."
            )
        for ours, theirs in zip(tokens, read, strict=False):
            if str(theirs).startswith(_ID) and theirs != f"{_ID}{ours}":
                raise TeacherError(
                    f"the server {self._client.server.url} read the token {theirs.removeprefix(_ID)} where {ours} was sent: "
                    "its tokenizer is another than the student's."
                )

    def _row(self, told: Any, asked: int) -> Tensor:
        if not isinstance(told, Mapping) or not told:
            raise TeacherError(
                f"the server {self._client.server.url} tells no log-probabilities at a position inside of a text."
            )
        ids, values, unknown = [], [], 0
        for name, value in told.items():
            token = self._token(name)
            if not isinstance(value, int | float) or math.isnan(value) or value > math.log(_ABOVE_ONE):
                raise TeacherError(
                    f"the server {self._client.server.url} tells the log-probability {value!r} of the token {name!r}."
                )
            if token is None:
                unknown += 1
            else:
                ids.append(token)
                values.append(max(float(value), _NOTHING))
        with self._counting:  # several texts are asked about at a time
            self.positions += 1
            self.fewer += len(ids) < min(asked, self._vocabulary)
            self.unknown += unknown
        known = torch.tensor(values, dtype=torch.float64)
        rest = max(1 - float(known.exp().sum()), 0.0)
        if float(known.exp().sum()) > _ABOVE_ONE:
            raise TeacherError(f"the server {self._client.server.url} tells probabilities of more than 1 together.")
        others = max(1, self._vocabulary - len(ids))
        row = torch.full((self._vocabulary,), math.log(rest / others) if rest > 0 else _NOTHING, dtype=torch.float64)
        row[torch.tensor(ids, dtype=torch.int64)] = known
        return row.log_softmax(-1).float()

    def _token(self, name: str) -> int | None:
        if name.startswith(_ID):
            number = name.removeprefix(_ID)
            return int(number) if number.isdigit() and int(number) < self._vocabulary else None
        return self._by_text.get(name)

    @cached_property
    def _by_text(self) -> dict[str, int]:
        """Tokens by what they are written as, where that is of one token alone."""
        found: dict[str, int] = {}
        double: set[str] = set()
        for token in range(self._vocabulary):
            text = str(self._tokenizer.decode([token]))
            if text in found:
                double.add(text)
            found[text] = token
        return {text: token for text, token in found.items() if text not in double}

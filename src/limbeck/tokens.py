"""``Tokens``: rows of tokens as both networks see them, the inputs of a batch of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Tokens:
    """B rows of at most L tokens.

    tokens: (B, L) int64. attention: (B, L) bool, False where a row is only filled up.
    positions: (B, L) int64, the place of each token in its example, from 0; 0 where a row is filled up.
    documents: (B, L) int64, where rows are packed the number of the example in its row, from 0, and -1 where the row is
        filled up; None where each row is one example.
    types: (B, L) int64, which sentence of a pair a token is of; None where the tokenizer does not tell.
    others, shares: where rows are mixed with others, (B, L) int64 the tokens of the other row, and (B, L, 2) float32 the parts
        that the embeddings of ``tokens`` and ``others`` have at each position, 0 where one has no token; None where no row
        is. Then ``attention``, ``positions`` and ``types`` are of the longer of the two.
    """

    tokens: Tensor
    attention: Tensor
    positions: Tensor
    documents: Tensor | None = None
    types: Tensor | None = None
    others: Tensor | None = None
    shares: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def shape(self) -> torch.Size:
        """(B, L)."""
        return self.tokens.shape

    def block_mask(self) -> Tensor:
        """(B, 1, L, L) bool: whether position i may look at position j ≤ i, which is of the same example.

        A filled position looks at itself alone, since a softmax over nothing is not a number.
        """
        length = self.tokens.shape[1]
        group = torch.where(self.attention, 0, -1) if self.documents is None else self.documents
        same = (group[:, :, None] == group[:, None, :]) & (group >= 0)[:, :, None]
        earlier = torch.ones(length, length, dtype=torch.bool, device=group.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=group.device)
        return ((same & earlier) | itself)[:, None]

    def causal(self) -> dict[str, Tensor]:
        """What a causal network of Hugging Face takes: ``input_ids``, ``attention_mask``, ``position_ids``.

        Packed rows come with the block mask (B, 1, L, L), others with a mask (B, L). The implementations of attention that
        take it are ``sdpa`` and, with the mask made additive by the caller, ``eager``.
        """
        mask = self.attention.long() if self.documents is None else self.block_mask()
        return {"input_ids": self.tokens, "attention_mask": mask, "position_ids": self.positions}

    def sequence(self) -> dict[str, Tensor]:
        """What a network of Hugging Face that classifies sequences takes."""
        tokens = self.tokens
        if self.shares is not None and self.others is not None:
            # Networks tell by these where a row ends.
            own, other = self.shares.unbind(-1)
            tokens = self.others.where((own == 0) & (other > 0), tokens)
        found = {"input_ids": tokens, "attention_mask": self.attention.long()}
        return found if self.types is None else {**found, "token_type_ids": self.types}

    def apart(self) -> tuple[Tokens, Tokens]:
        """The rows and those that they are mixed with, neither of them mixed; a row that is whole is with itself."""
        assert self.shares is not None
        assert self.others is not None
        own, other = self.shares.unbind(-1)
        whole = ~(other > 0).any(dim=1, keepdim=True)
        first = replace(self, attention=own > 0, others=None, shares=None)
        second = replace(
            first, tokens=self.tokens.where(whole, self.others), attention=(whole & (own > 0)) | (other > 0)
        )
        return first, second

    def map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        """A copy with ``function`` applied to every tensor that is present."""
        values: list[Any] = [None if value is None else function(value) for value in _values(self)]
        return Tokens(*values)

    def __getitem__(self, rows: slice | Tensor) -> Tokens:
        return self.map(lambda value: value[rows])


_NAMES = tuple(part.name for part in fields(Tokens))


def _values(tokens: Tokens) -> list[Tensor | None]:
    return [getattr(tokens, name) for name in _NAMES]


pytree.register_pytree_node(Tokens, lambda tokens: (_values(tokens), None), lambda values, _: Tokens(*values))

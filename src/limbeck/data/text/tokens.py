"""The tokens of a split, as tokenising leaves them and batches take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from limbeck.data.text.tokenizer import SpecialTokens
from limbeck.errors import DataError


@dataclass(frozen=True)
class TokenSplit:
    """N rows of tokens, one after the other.

    tokens: (T,) int32. ends: (N,) int64, where each row ends. prompts: (N,) int64, how many tokens at the start of each row
    are its prompt. index: (N,) int64, the index of each row's example; where documents were split, the number of the row.
    labels: for a classification, (N,) int64 classes or float32 numbers; None where the next token is learnt.
    types: (T,) int8, for a classification of pairs which sentence a token is of, where the tokenizer tells; else None.
    special: the tokenizer's special tokens. vocabulary: how many tokens it has.
    """

    tokens: Tensor
    ends: Tensor
    prompts: Tensor
    index: Tensor
    special: SpecialTokens
    vocabulary: int
    labels: Tensor | None = None
    types: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Tensor:
        """(N,) int64 tokens of each row."""
        return self.ends.diff(prepend=self.ends.new_zeros(1))

    def check_vocabulary(self, size: int) -> None:
        """Raise DataError or SettingError unless a network with ``size`` embeddings of tokens knows all that are used."""
        self.special.check_vocabulary(size)
        if int(self.tokens.max()) >= size:
            row = int(torch.searchsorted(self.ends, int(self.tokens.argmax()), right=True))
            raise DataError(
                f"example {int(self.index[row])} has the token {int(self.tokens.max())}, and the network has embeddings for "
                f"0 to {size - 1}; use the tokenizer that belongs to the network."
            )


def flat(rows: Sequence[Sequence[int]], dtype: torch.dtype = torch.int32) -> Tensor:
    """(T,) the numbers of all rows, one row after the other."""
    parts = [torch.tensor(row, dtype=dtype) for row in rows]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=dtype)


def ends_of(rows: Sequence[Sequence[int]]) -> Tensor:
    """(N,) int64, where each row ends in :func:`flat`."""
    return torch.tensor(list(accumulate(map(len, rows))), dtype=torch.int64)

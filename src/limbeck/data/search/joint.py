"""Queries and documents read together, as a cross-encoder sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.data.search.collection import SearchData
from limbeck.data.search.tokens import tokenizer_digest
from limbeck.errors import check_whole


@dataclass(frozen=True)
class JointBatch:
    """P pairs of a query and a document as a cross-encoder takes them.

    inputs: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, (P, L) int64. of_query, of_document: (P, L) bool,
    the tokens of each text; those that the tokenizer puts around them belong to neither.
    """

    inputs: dict[str, Tensor]
    of_query: Tensor
    of_document: Tensor


@dataclass(frozen=True)
class JointTexts:
    """The texts of a collection, joined in pairs by a tokenizer.

    tokenizer: a fast one of Hugging Face. max_length: tokens of a pair, special ones counted; the longer text of a pair is cut
    first, as sentence-transformers does.
    """

    data: SearchData
    tokenizer: Any
    max_length: int

    def __post_init__(self) -> None:
        check_whole("max_length", self.max_length, low=1)

    def batch(self, queries: Tensor, documents: Tensor) -> JointBatch:
        """The pairs of queries and documents at places (P,) int64."""
        made = self.tokenizer(
            _at(self.data.queries.texts, queries),
            _at(self.data.documents.texts, documents),
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        # None for special tokens, 0 for the first text, 1 for the second.
        parts = [made.sequence_ids(row) for row in range(len(queries))]
        of_query, of_document = (torch.tensor([[part == text for part in row] for row in parts]) for text in (0, 1))
        return JointBatch(dict(made), of_query, of_document)

    def facts(self) -> dict[str, str]:
        """What decides the tokens of a pair, for the key of a cache."""
        return {"tokenizer": tokenizer_digest(self.tokenizer), "max_length": str(self.max_length)}


def _at(texts: Sequence[str], places: Tensor) -> list[str]:
    return [texts[place] for place in places.tolist()]

"""Documents by the words that they share with a query."""

from __future__ import annotations

from typing import Any

import torch

from limbeck.data.search.collection import SearchData
from limbeck.data.search.found import Found
from limbeck.errors import MissingExtraError, SettingError, check_number, check_whole


def bm25(data: SearchData, queries: torch.Tensor, count: int, *, k1: float = 1.5, b: float = 0.75) -> Found:
    """The ``count`` documents that BM25 puts first for each query, by the library bm25s (Lucene's form of the score).

    queries: (Q,) int64 places. k1, b: of BM25, b in [0, 1]. Words are lower case, of two characters or more, without English
    stop words, not stemmed. Documents that share no word with a query have the score 0 and come last, in any order.

    Raises:
        SettingError: ``count`` is not from 1 to the number of documents, or k1 or b are out of range.
        MissingExtraError: bm25s is not installed.
    """
    check_whole("count", count, low=1)
    check_number("k1", k1, low=0.0)
    check_number("b", b, low=0.0, high=1.0)
    if count > len(data.documents):
        raise SettingError(f"count={count} is more than the {len(data.documents)} documents of {data.name}.")
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("bm25s", "retrieval", "BM25") from error

    def words(texts: tuple[str, ...] | list[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords="en", show_progress=False, return_ids=False)

    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(words(data.documents.texts), show_progress=False)
    asked = words([data.queries.texts[place] for place in queries.tolist()])
    documents, scores = index.retrieve(asked, k=count, show_progress=False)
    return Found(queries, torch.as_tensor(documents).long(), torch.as_tensor(scores).float())

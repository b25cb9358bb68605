"""Exact search: the documents whose embeddings score highest for a query's."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from limbeck import losses
from limbeck.data.search import Found
from limbeck.errors import DataError, MissingExtraError, SettingError, check_choice, check_whole

Similarity = Literal["dot", "cosine"]
SIMILARITIES: tuple[Similarity, ...] = ("dot", "cosine")
Backend = Literal["exact", "faiss"]
BACKENDS: tuple[Backend, ...] = ("exact", "faiss")

_ENTRIES = 4_000_000
"""Scores that are held at a time: 16 MB."""


class Index(Protocol):
    """Documents that can be searched."""

    @property
    def bytes(self) -> int:
        """What the documents' embeddings take."""
        ...

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores (Q, K) float32 in descending order and places (Q, K) int64 of the best ``count`` documents."""
        ...


def make_index(documents: Tensor, *, similarity: str, backend: str = "exact") -> Index:
    """An index over embeddings (N, D).

    similarity: ``dot``, or ``cosine``, which scales documents and queries to length 1.
    backend: ``exact`` multiplies matrices, 4 million scores at a time, on the device of the documents; ``faiss`` is exact too
        and takes less time for very many documents on the CPU.

    Raises:
        SettingError: no such similarity or backend. DataError: embeddings of another form, or not finite.
        MissingExtraError: faiss is not installed.
    """
    check_choice("similarity", similarity, SIMILARITIES)
    check_choice("backend", backend, BACKENDS)
    _check("documents", documents)
    rows = losses.unit(documents.float()) if similarity == "cosine" else documents.float()
    return _Exact(rows, similarity) if backend == "exact" else _Faiss(rows, similarity)


def find(index: Index, queries: Tensor, places: Tensor, count: int) -> Found:
    """What an index finds for embeddings (Q, D) of the queries at ``places`` (Q,)."""
    scores, documents = index.search(queries, count)
    return Found(places, documents, scores)


def check_same_similarity(student: str, teacher: str) -> None:
    """Raise SettingError where student and teacher score by different functions, so that their scores do not compare."""
    if student != teacher:
        raise SettingError(
            f"the student scores documents by '{student}' and the teacher by '{teacher}': their scores are not of one "
            "kind, and a student cannot search the teacher's documents. Give both the same similarity."
        )


class _Exact:
    def __init__(self, documents: Tensor, similarity: str) -> None:
        self._documents, self._similarity = documents, similarity

    @property
    def bytes(self) -> int:
        return self._documents.numel() * self._documents.element_size()

    @torch.no_grad()
    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        queries = _asked(queries, self._documents.shape, count, self._similarity).to(self._documents.device)
        parts = []
        for part in queries.split(max(1, _ENTRIES // len(self._documents))):
            # Of equal scores among those found the earlier document comes first: topk gives them in any order.
            found, places = (part @ self._documents.T).topk(count)
            order = places.argsort(dim=1)
            found, places = found.gather(1, order), places.gather(1, order)
            order = found.argsort(dim=1, descending=True, stable=True)
            parts.append((found.gather(1, order).cpu(), places.gather(1, order).cpu()))
        scores, documents = (torch.cat(column) for column in zip(*parts, strict=True))
        return scores, documents


class _Faiss:
    def __init__(self, documents: Tensor, similarity: str) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError("faiss-cpu", "retrieval", "search with backend 'faiss'") from error
        self._shape, self._similarity = documents.shape, similarity
        self._index: Any = faiss.IndexFlatIP(documents.shape[1])
        self._index.add(_numpy(documents))

    @property
    def bytes(self) -> int:
        return self._shape.numel() * 4

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        scores, places = self._index.search(_numpy(_asked(queries, self._shape, count, self._similarity)), count)
        return torch.from_numpy(scores), torch.from_numpy(places)


def _numpy(rows: Tensor) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(rows.cpu().numpy())


def _asked(queries: Tensor, documents: torch.Size, count: int, similarity: str) -> Tensor:
    _check("queries", queries)
    check_whole("count", count, low=1)
    if queries.shape[1] != documents[1]:
        raise DataError(
            f"search: queries have {queries.shape[1]} numbers each and documents {documents[1]}; an encoder of queries beside "
            "another's documents needs a projection to their width."
        )
    if count > documents[0]:
        raise SettingError(f"count={count} is more than the {documents[0]} documents of the index.")
    return losses.unit(queries.float()) if similarity == "cosine" else queries.float()


def _check(what: str, rows: Tensor) -> None:
    if rows.ndim != 2 or not len(rows):
        raise DataError(f"search: the embeddings of the {what} must be (N, D), got {tuple(rows.shape)}.")
    if not rows.isfinite().all():
        place = int((~rows.isfinite().all(dim=1)).nonzero()[0, 0])
        raise DataError(f"search: the embedding of one of the {what} is not finite (place {place}).")

"""Batches of queries and documents: what an epoch's batches are depends on the seed, the epoch and the position alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from limbeck.data.search.collection import SearchData
from limbeck.data.search.extra import ExtraQueries
from limbeck.data.search.pairs import Pairs
from limbeck.data.search.tokens import TextBatch, TokenRows
from limbeck.data.seeds import stream
from limbeck.errors import DataError, SettingError, check_whole


@dataclass(frozen=True)
class PairTexts:
    """The queries and documents of a collection in the tokens of one network."""

    queries: TokenRows
    documents: TokenRows


@dataclass(frozen=True)
class PairTokens:
    """The texts of a batch in the tokens of one network.

    queries: B rows. documents: B·M rows, those of a query one after the other, its positive first.
    """

    queries: TextBatch
    documents: TextBatch

    def to(self, device: torch.device | str) -> PairTokens:
        """The batch on another device; the copy does not wait for the device."""
        return PairTokens(self.queries.to(device), self.documents.to(device))


@dataclass(frozen=True)
class PairBatch:
    """A batch of B queries with M documents each: a positive and M - 1 negatives.

    student: the texts in the student's tokens. teacher: in the teacher's, where its tokenizer or prompts are others; else
    None, and both read the same.
    query: (B,) int64 places of the queries. document: (B, M) int64 places of their documents.
    labels: (B,) int64, the column of the query's positive among the W·B·M documents of all W processes in the order of
    their ranks: the class that ``ce`` and ``contrastive`` want of the score matrix.
    excluded: (B, W·B·M) bool, the columns that are no negatives of a query though they are not its positive: documents that
    answer it, by the collection's judgements, and copies of a document that the row has already, of which one counts. Its
    score is to be -inf, for student and teacher, before any softmax.
    scores: (B, M) float32, a teacher's scores from a file; None where there are none.
    extra, extra_query: B further queries that nothing is known to answer, in the student's tokens, and their places (B,) int64;
    None where there are none.
    """

    student: PairTokens
    teacher: PairTokens | None
    query: Tensor
    document: Tensor
    labels: Tensor
    excluded: Tensor
    scores: Tensor | None = None
    extra: TextBatch | None = None
    extra_query: Tensor | None = None

    def __len__(self) -> int:
        return len(self.query)

    @property
    def own_excluded(self) -> Tensor:
        """(B, M) bool, ``excluded`` among a query's own documents alone; its positive is column 0 there."""
        first = self.labels[:, None] + torch.arange(self.document.shape[1], device=self.labels.device)
        return self.excluded.gather(1, first)

    @property
    def others(self) -> Tensor:
        """(B, W·B·M) bool, the columns of documents that are not a query's own."""
        own = self.labels[:, None] + torch.arange(self.document.shape[1], device=self.labels.device)
        return torch.ones_like(self.excluded).scatter(1, own, False)

    def to(self, device: torch.device | str) -> PairBatch:
        """The batch on another device; the copy does not wait for the device."""

        def there(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        return PairBatch(
            student=self.student.to(device),
            teacher=None if self.teacher is None else self.teacher.to(device),
            query=there(self.query),
            document=there(self.document),
            labels=there(self.labels),
            excluded=there(self.excluded),
            scores=None if self.scores is None else there(self.scores),
            extra=None if self.extra is None else self.extra.to(device),
            extra_query=None if self.extra_query is None else there(self.extra_query),
        )


class PairBatches:
    """Training batches of a collection; the protocol of ``signals.Batches``, with ``PairBatch``.

    pairs: its examples. student, teacher: its texts in the tokens of the networks; teacher None where they are the same.
    batch_size: queries of a global batch, a multiple of ``world_size``. Process ``rank`` gets its contiguous part.
    negatives: how many of an example's pool each epoch draws; None for all of them. extra: queries without judgements, of which
    each batch has as many as of its own.

    Every epoch sees every example once, but for the last ones that do not fill a batch. Raises SettingError or DataError where
    the settings do not fit.
    """

    def __init__(
        self,
        data: SearchData,
        pairs: Pairs,
        student: PairTexts,
        seed: int,
        *,
        batch_size: int,
        teacher: PairTexts | None = None,
        negatives: int | None = None,
        extra: ExtraQueries | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_whole("batch_size", batch_size, low=1)
        self._drawn = pairs.pool.shape[1] if negatives is None else negatives
        _check(data, pairs, [texts for texts in (student, teacher) if texts], batch_size, self._drawn, rank, world_size)
        self._data, self._pairs, self._student, self._teacher = data, pairs, student, teacher
        self._extra = extra
        self._seed, self._size, self._share = seed, batch_size, (rank, world_size)
        self._device = torch.device(device)

    @property
    def batch_size(self) -> int:
        """Queries of a global batch over all processes."""
        return self._size

    def __len__(self) -> int:
        return len(self._pairs) // self._size

    def epoch(self, number: int, start: int = 0) -> Iterator[PairBatch]:
        """See ``signals.Batches.epoch``."""
        if not 0 <= start <= len(self):
            raise SettingError(f"start must be 0 to {len(self)}, the batches of an epoch; got {start}.")
        order = torch.randperm(len(self._pairs), generator=stream(self._seed, number, 0))
        places = self._places(number)
        for position in range(start, len(self)):
            rows = order[position * self._size : (position + 1) * self._size]
            yield self._with_extra(self._batch(rows, places[rows]), number, position).to(self._device)

    def _with_extra(self, batch: PairBatch, epoch: int, position: int) -> PairBatch:
        if self._extra is None:
            return batch
        # Of a process's part of the batch, as with its queries.
        places = self._extra.at(epoch, position * self._size + self._share[0] * len(batch), len(batch))
        return replace(batch, extra=self._student.queries.batch(places), extra_query=places)

    def _places(self, epoch: int) -> Tensor:
        """(E, M) for each example which of its own documents, 0 the positive, this epoch takes."""
        count, pool = self._pairs.pool.shape
        drawn = torch.rand(count, pool, generator=stream(self._seed, epoch, 1)).argsort(dim=1)[:, : self._drawn]
        return torch.cat([torch.zeros(count, 1, dtype=torch.int64), drawn.sort(dim=1).values + 1], dim=1)

    def _batch(self, rows: Tensor, places: Tensor) -> PairBatch:
        pairs, (rank, world_size) = self._pairs, self._share
        own = torch.cat([pairs.positives[rows, None], pairs.pool[rows]], dim=1)
        documents = own.gather(1, places)
        queries, width = pairs.queries[rows], documents.shape[1]
        share = self._size // world_size
        mine = slice(rank * share, (rank + 1) * share)
        labels = torch.arange(self._size)[mine] * width
        return PairBatch(
            student=_texts(self._student, queries[mine], documents[mine]),
            teacher=None if self._teacher is None else _texts(self._teacher, queries[mine], documents[mine]),
            query=queries[mine],
            document=documents[mine],
            labels=labels,
            excluded=excluded(self._data, queries[mine], documents.flatten(), labels, width),
            scores=None if pairs.scores is None else pairs.scores[rows].gather(1, places)[mine],
        )


class EvalPairBatches:
    """Every example once, in order, for figures: batches of about ``batch_size``, none much smaller than the others.

    A batch is whole in one process, of ``world_size`` each of which takes every so-manieth, so that figures do not depend on
    their number. All negatives of an example's pool are there. The arguments are those of :class:`PairBatches`.
    """

    def __init__(
        self,
        data: SearchData,
        pairs: Pairs,
        student: PairTexts,
        *,
        batch_size: int,
        teacher: PairTexts | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        size = min(batch_size, len(pairs))
        _check(data, pairs, [texts for texts in (student, teacher) if texts], size, 0, 0, 1)
        self._data, self._pairs, self._student, self._teacher = data, pairs, student, teacher
        self._size, self._share, self._device = size, (rank, world_size), torch.device(device)

    def __iter__(self) -> Iterator[PairBatch]:
        rank, world_size = self._share
        batches = torch.arange(len(self._pairs)).tensor_split(-(-len(self._pairs) // self._size))
        for rows in batches[rank::world_size]:
            yield self._batch(rows).to(self._device)

    def _batch(self, rows: Tensor) -> PairBatch:
        queries = self._pairs.queries[rows]
        documents = torch.cat([self._pairs.positives[rows, None], self._pairs.pool[rows]], dim=1)
        width = documents.shape[1]
        labels = torch.arange(len(rows)) * width
        return PairBatch(
            student=_texts(self._student, queries, documents),
            teacher=None if self._teacher is None else _texts(self._teacher, queries, documents),
            query=queries,
            document=documents,
            labels=labels,
            excluded=excluded(self._data, queries, documents.flatten(), labels, width),
        )


def excluded(data: SearchData, queries: Tensor, documents: Tensor, labels: Tensor, width: int) -> Tensor:
    """(B, N) bool, which of N documents are no negatives of each query though they are not its positive.

    queries: (B,) places. documents: (N,) places, in blocks of ``width`` of which one belongs to each query. labels: (B,) the
    column of each query's positive, the first of its block.

    Those that answer the query, and copies: of equal documents the row keeps the one in its own block, or else the first.
    """
    kinds = data.documents.originals[documents]
    block = torch.arange(len(documents)) // width
    row = torch.arange(len(queries))[:, None] * len(data.documents)
    own = kinds[labels[:, None] + torch.arange(width)]
    among_own = torch.isin(row + kinds, row + own)
    inside = block == (labels // width)[:, None]
    found = torch.where(inside, _again(block * len(data.documents) + kinds), _again(kinds) | among_own)
    found |= data.is_relevant(queries[:, None], documents)
    return found.scatter(1, labels[:, None], False)


def _again(values: Tensor) -> Tensor:
    """(N,) bool, whether an equal value comes earlier."""
    ordered, order = values.sort(stable=True)
    found = torch.zeros_like(values, dtype=torch.bool)
    found[order[1:]] = ordered[1:] == ordered[:-1]
    return found


def _texts(texts: PairTexts, queries: Tensor, documents: Tensor) -> PairTokens:
    return PairTokens(texts.queries.batch(queries), texts.documents.batch(documents.flatten()))


def _check(
    data: SearchData,
    pairs: Pairs,
    texts: list[PairTexts],
    batch_size: int,
    negatives: int,
    rank: int,
    world_size: int,
) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise SettingError(f"rank must be 0 to world_size - 1, got rank={rank}, world_size={world_size}.")
    if batch_size % world_size:
        raise SettingError(f"batch_size must be divisible by the number of processes ({world_size}), got {batch_size}.")
    if batch_size > len(pairs):
        raise SettingError(f"batch_size={batch_size} is more than the {len(pairs)} examples; give less.")
    check_whole("negatives", negatives, low=0)
    if negatives > pairs.pool.shape[1]:
        raise SettingError(f"negatives={negatives} is more than the {pairs.pool.shape[1]} in each example's pool.")
    for one in texts:
        if (len(one.queries), len(one.documents)) != (len(data.queries), len(data.documents)):
            raise DataError(
                f"{data.name} has {len(data.queries)} queries and {len(data.documents)} documents, and the tokens are of "
                f"{len(one.queries)} and {len(one.documents)}: tokenise all texts, in their order."
            )


# As pytree nodes they are the inputs of a ``signals.Batch``.
for _kind in (TextBatch, PairTokens, PairBatch):
    pytree.register_dataclass(_kind)

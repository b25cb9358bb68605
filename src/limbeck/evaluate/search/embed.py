"""All texts of a collection through an encoder, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.data.search import TokenRows
from limbeck.errors import check_whole
from limbeck.evaluate.search.index import Index

_WARM_UP = 3


@torch.no_grad()
def embed(encoder: nn.Module, rows: TokenRows, *, batch_size: int = 64, device: torch.device | str = "cpu") -> Tensor:
    """(N, D) float32 embeddings on the CPU, in the order of the rows.

    encoder: from a mapping with ``input_ids``, ``attention_mask`` (R, L) to (R, D); it is left in the mode it was in. Texts go
    through it from the longest to the shortest, so that little is filled up and a memory that is too small shows at once.
    """
    check_whole("batch_size", batch_size, low=1)
    order = rows.lengths.argsort(descending=True, stable=True)
    training = encoder.training
    encoder.eval()
    try:
        parts = [_asked(encoder, rows, places, device).float().cpu() for places in order.split(batch_size)]
    finally:
        encoder.train(training)
    return torch.cat(parts)[order.argsort()]


def _asked(encoder: nn.Module, rows: TokenRows, places: Tensor, device: torch.device | str) -> Tensor:
    inputs: Mapping[str, Tensor] = rows.batch(places).to(device).inputs()
    found: Tensor = encoder(inputs)
    return found


@dataclass(frozen=True)
class SearchCost:
    """What a network costs in search.

    parameters: of the encoder of queries. index_bytes: of all documents' embeddings. documents_per_second: encoded in batches.
    query_milliseconds: for one query alone, from its tokens to its first documents, the median. search_milliseconds: the
    search alone out of that, the median.
    """

    parameters: int
    index_bytes: int
    documents_per_second: float
    query_milliseconds: float
    search_milliseconds: float


def search_cost(
    encoder: nn.Module,
    index: Index,
    queries: TokenRows,
    documents: TokenRows,
    *,
    document_encoder: nn.Module | None = None,
    batch_size: int = 64,
    texts: int = 256,
    repeats: int = 50,
    count: int = 10,
    device: torch.device | str = "cpu",
) -> SearchCost:
    """Measure on ``device``, with the threads that torch has now.

    document_encoder: where documents are encoded by another network than queries. texts: documents that are encoded for the
    speed, every so-manieth, so that their lengths are those of the collection. repeats: queries that are asked one by one.
    """
    for name, value in (("texts", texts), ("repeats", repeats)):
        check_whole(name, value, low=1)
    sample = _some(documents, texts)
    embed(document_encoder or encoder, _some(documents, min(texts, batch_size)), batch_size=batch_size, device=device)
    seconds = _seconds(lambda: embed(document_encoder or encoder, sample, batch_size=batch_size, device=device))
    whole, alone = [], []
    for number in range(repeats + _WARM_UP):
        one = queries.some(torch.tensor([number % len(queries)]))
        start = time.perf_counter()
        vector = embed(encoder, one, batch_size=1, device=device)
        middle = time.perf_counter()
        index.search(vector, count)
        end = time.perf_counter()
        whole.append(end - start)
        alone.append(end - middle)
    return SearchCost(
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        index_bytes=index.bytes,
        documents_per_second=len(sample) / seconds,
        query_milliseconds=1000 * _median(whole[_WARM_UP:]),
        search_milliseconds=1000 * _median(alone[_WARM_UP:]),
    )


def _some(rows: TokenRows, count: int) -> TokenRows:
    step = max(1, len(rows) // count)
    return rows.some(torch.arange(0, len(rows), step)[:count])


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())

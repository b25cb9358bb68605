"""Retrieval from a database: the images of one split are queries, those of another are what is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import DataError, check_choice, check_whole
from limbeck.evaluate.kinds import Count, Share

Metric = Literal["cosine", "l2"]
METRICS: tuple[Metric, ...] = ("cosine", "l2")

_LEVELS = 11
_ENTRIES = 2_000_000


@dataclass(frozen=True)
class DatabaseRetrieval:
    """How well the images of a query's class come first when a database is sorted by nearness to it.

    metric: ``cosine`` or ``l2``. queries: how many have an image of their class in the database; the rest are left out.
    map: mean over the queries of the 11-point interpolated average precision, in [0, 1]. precision: share of relevant images
    among the first ``top``, the mean over the queries. chance: share of relevant images in the database, the mean over the
    queries, which is about what a random order reaches.
    """

    metric: Metric
    queries: Count
    database: Count
    map: Share
    top: Count
    precision: Share
    chance: Share


def database_retrieval(
    queries: Tensor,
    query_labels: Tensor,
    database: Tensor,
    database_labels: Tensor,
    *,
    metric: Metric,
    top: int = 100,
) -> DatabaseRetrieval:
    """From embeddings (Q, D) and labels (Q,) of queries, and (N, D) and (N,) of a database that holds none of them.

    The 11-point average precision of a query is the mean over the recalls 0, 0.1, …, 1 of the highest precision at any rank
    with at least that recall. Images that are equally near stand in the database's order. Time is Q·N·(D + log N); memory is
    a few hundred MB, or what one query of a very large database takes.

    It is the evaluation of information flow (arXiv 2005.00727), whose database is the training split and whose queries are the
    test split. The authors' code (github passalis/pkth, nn/retrieval_evaluation.py) computes it in another way, so figures
    differ: it reads each recall at the rank whose recall is nearest, which may be below it; it takes the highest precision
    over the following ranks for the first ranks alone, as many as there are queries in a batch of 128; and its precision at
    100 is taken after that.

    Args:
        metric: ``cosine``, or ``l2`` for the Euclidean distance.
        top: how many of the first are counted in ``precision``.

    Raises:
        SettingError: an unknown metric, or a ``top`` that is no whole number of at least 1.
        DataError: the widths differ, a row has no label, an embedding is not finite, the database has fewer than ``top``
            images, or none of any query's class.
    """
    check_choice("metric", metric, METRICS)
    check_whole("top", top, low=1)
    _check(queries, query_labels, database, database_labels, top)
    rows, found = _prepared(queries, database, metric)
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    for part in torch.arange(len(rows)).split(max(1, _ENTRIES // len(found))):
        order = _nearness(rows[part], found, metric).argsort(dim=1, descending=True, stable=True)
        relevant = database_labels[order] == query_labels[part, None]
        told = _of_queries(relevant[relevant.any(dim=1)], top)
        sums += told.sum(dim=0).cpu()
        count += len(told)
    if count == 0:
        raise DataError("retrieval needs queries of a class that the database has, and it has none of theirs.")
    mean_precision, precision, chance = (sums / count).tolist()
    return DatabaseRetrieval(metric, count, len(database), mean_precision, top, precision, chance)


def _check(queries: Tensor, query_labels: Tensor, database: Tensor, database_labels: Tensor, top: int) -> None:
    for what, rows, labels in (("queries", queries, query_labels), ("database", database, database_labels)):
        if rows.ndim != 2 or labels.shape != rows.shape[:1]:
            raise DataError(
                f"retrieval: the {what} must be embeddings (N, D) with labels (N,), got {tuple(rows.shape)} and "
                f"{tuple(labels.shape)}."
            )
        if not rows.isfinite().all():
            raise DataError(f"retrieval: an embedding of the {what} is not finite.")
    if queries.shape[1] != database.shape[1]:
        raise DataError(
            f"retrieval: queries have {queries.shape[1]} numbers each and the database {database.shape[1]}; both must be "
            "embeddings of one network."
        )
    if len(database) < top:
        raise DataError(f"retrieval: the database has {len(database)} images, and the first {top} are asked for.")


def _prepared(queries: Tensor, database: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    queries, database = queries.float(), database.float()
    if metric == "cosine":
        return losses.unit(queries), losses.unit(database)
    # Distances do not depend on the mean; inner products lose fewer digits without it.
    mean = database.mean(dim=0)
    return queries - mean, database - mean


def _nearness(rows: Tensor, database: Tensor, metric: str) -> Tensor:
    """(Q, N): the nearer, the greater; for ``l2`` the negative squared distance but for what is the same for all of a query."""
    products = rows @ database.T
    return products if metric == "cosine" else products - database.square().sum(dim=1) / 2


def _of_queries(relevant: Tensor, top: int) -> Tensor:
    """(Q, 3): 11-point average precision, precision at ``top`` and share of relevant images, from (Q, N) bool in order."""
    hits = relevant.cumsum(dim=1)
    total = hits[:, -1:]
    ranks = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    best_from_here = (hits.double() / ranks).flip(1).cummax(dim=1).values.flip(1)
    # In whole numbers, so that a recall of 3 of 10 is not less than 0.3: at least level/10 of all, rounded up.
    levels = torch.arange(_LEVELS, device=relevant.device)
    needed = (levels * total + _LEVELS - 2) // (_LEVELS - 1)
    points = best_from_here.gather(1, torch.searchsorted(hits, needed))
    shares = hits[:, [top - 1]].double() / top, total.double() / relevant.shape[1]
    return torch.cat([points.mean(dim=1, keepdim=True), *shares], dim=1)

"""Whether images of one class lie near each other in a network's embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import DataError

_ROWS = 256


@dataclass(frozen=True)
class Retrieval:
    """Every image is a query among all others, by cosine; those of its class are relevant.

    map: mean over the queries of their average precision, in [0, 1]. precision_at_1: share of queries whose nearest image is
    of their class. queries: how many have another image of their class; the rest are left out. chance: the share of relevant
    images, the mean over the queries, which is about what a random order reaches.
    """

    queries: int
    map: float
    precision_at_1: float
    chance: float


def retrieval(embedding: Tensor, labels: Tensor) -> Retrieval:
    """From embeddings (N, D) and labels (N,). Time is N² log N, memory 256·N similarities at a time.

    Raises:
        DataError: all images are of one class, or no class has two.
    """
    if len(labels.unique()) < 2:
        raise DataError("retrieval needs images of two classes or more: with one class every image is relevant.")
    rows = losses.unit(embedding)
    sums, queries = torch.zeros(3, dtype=torch.float64), 0
    for part in torch.arange(len(rows)).split(_ROWS):
        found = _of_queries(rows, labels, part)
        sums += found.sum(dim=0)
        queries += len(found)
    if queries == 0:
        raise DataError("retrieval needs a class with two images or more.")
    return Retrieval(queries, *(sums / queries).tolist())


def _of_queries(rows: Tensor, labels: Tensor, part: Tensor) -> Tensor:
    """(Q, 3): average precision, precision at 1 and share of relevant images, of the queries that have a relevant one."""
    similarity = rows[part] @ rows.T
    # The query itself comes last and is cut off.
    similarity[torch.arange(len(part)), part] = -torch.inf
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :-1]
    relevant = (labels[order] == labels[part, None]).double()
    hits = relevant.sum(dim=1)
    ranks = torch.arange(1, relevant.shape[1] + 1)
    precision = (relevant * relevant.cumsum(dim=1) / ranks).sum(dim=1) / hits
    return torch.stack([precision, relevant[:, 0], hits / relevant.shape[1]], dim=1)[hits > 0]

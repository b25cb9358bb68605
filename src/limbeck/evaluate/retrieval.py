"""Whether images of one class lie near each other in a network's embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import DataError
from limbeck.evaluate.kinds import Count, Share

_ROWS = 256


@dataclass(frozen=True)
class Retrieval:
    """Every image is a query among all others, by cosine; those of its class are relevant.

    map: mean over the queries of their average precision, in [0, 1]. precision_at_1: share of queries whose nearest image is
    of their class. queries: how many have another image of their class; the rest are left out. chance: the share of relevant
    images, the mean over the queries, which is about what a random order reaches.
    """

    queries: Count
    map: Share
    precision_at_1: Share
    chance: Share


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
    # The query itself comes last, and is never relevant.
    similarity[torch.arange(len(part)), part] = -torch.inf
    relevant = labels == labels[part, None]
    relevant[torch.arange(len(part)), part] = False
    relevant, similarity = relevant[relevant.any(dim=1)], similarity[relevant.any(dim=1)]
    hits = relevant.sum(dim=1).double()
    ranks = _ranks(similarity, relevant)
    found = (torch.arange(1, ranks.shape[1] + 1) / ranks).sum(dim=1)  # 0 where the rank is infinite
    first = (ranks[:, :1] == 1).double().sum(dim=1)
    return torch.stack([found / hits, first, hits / (len(rows) - 1)], dim=1)


def _ranks(similarity: Tensor, relevant: Tensor) -> Tensor:
    """(Q, R) ranks from 1 on of the relevant columns of each row (Q, N), in order; infinite where a row has fewer than R."""
    columns, most = similarity.shape[1], int(relevant.sum(dim=1).max()) if len(relevant) else 0
    # Values are sorted many times as quickly as places, and few of these are asked for.
    ordered = _sorted(similarity)
    sought = _sorted(similarity.where(relevant, -torch.inf))[:, columns - most :].flip(1)
    below = [torch.searchsorted(ordered, sought.contiguous(), right=right) for right in (True, False)]
    there = sought > -torch.inf
    ranks = (columns + 1.0 - below[0].double()).where(there, torch.inf)
    # Of equals the first in the order of the rows.
    tied = ((below[0] - below[1] > 1) & there).any(dim=1)
    if tied.any():
        order = similarity[tied].argsort(dim=1, descending=True, stable=True)
        places = torch.arange(1.0, columns + 1, dtype=torch.float64)
        ranks[tied] = places.where(relevant[tied].gather(1, order), torch.inf).sort(dim=1).values[:, :most]
    return ranks


def _sorted(values: Tensor) -> Tensor:
    return torch.from_numpy(np.sort(values.numpy(), axis=1))

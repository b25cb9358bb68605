"""Where the same images lie in each network's embedding, drawn in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.stratify import choose
from limbeck.errors import DataError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.kinds import Count, Number, Positive, Share

LIMIT = 600
CLASS_LIMIT = 10
_DIMENSIONS = 50
_PERPLEXITY = 30.0
_NEIGHBOURS = 10
_FEWEST = 10
_SMALL = 1e-4  # as scikit-learn's own start from principal coordinates

_Points = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class EmbeddingMap:
    """t-SNE (van der Maaten and Hinton 2008) of the same N samples in each network's embedding, each network by itself.

    method: what was done, in words. perplexity: about how many neighbours each point keeps. classes: names of the classes
    that are shown; labels: of each sample, as a position among these. networks: N points (x, y) of each network; only which
    points are near each other means anything, and nothing in one map compares with a place in another.
    trustworthiness: of each network, how far points that are near each other on the map are so in its embedding too, 1 for
    all (Venna and Kaski 2001; 10 neighbours where there are enough). It is None, and all points lie at the origin,
    where an embedding is the same for all samples.
    """

    method: str
    perplexity: Positive
    classes: tuple[str, ...]
    labels: tuple[Count, ...]
    networks: Mapping[str, tuple[tuple[Number, Number], ...]]
    trustworthiness: Mapping[str, Share | None]


def embedding_map(
    gathered: Mapping[str, Gathered],
    classes: Sequence[str],
    *,
    limit: int = LIMIT,
    class_limit: int = CLASS_LIMIT,
    seed: int = 0,
) -> EmbeddingMap:
    """A map of each network that has an embedding, of the same samples for all; some 3 s a network for 600 samples.

    At most ``limit`` samples of ``class_limit`` classes are shown, the classes in proportion. Of more classes those at even
    distances in the order of the labels are taken. The same seed gives the same maps.

    Raises:
        DataError: no network has an embedding, they were gathered on other images, there are fewer than 10 samples, or an
            embedding is not finite.
    """
    known = {who: each.embedding for who, each in gathered.items() if each.embedding is not None}
    if not known:
        raise DataError("a map of embeddings needs an embedding, and no network's classifier is known.")
    labels = _common_labels(gathered)
    shown = _spread(labels.unique(), class_limit)
    rows = _sample(labels, shown, limit, seed)
    if len(rows) < _FEWEST:
        raise DataError(f"a map of embeddings needs {_FEWEST} images or more, and there are {len(rows)}.")
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    maps = {who: _map(who, embedding[rows], perplexity, seed) for who, embedding in known.items()}
    return EmbeddingMap(
        method=_method(len(rows), len(shown), len(labels.unique()), max(each.shape[1] for each in known.values())),
        perplexity=perplexity,
        classes=tuple(classes[label] for label in shown.tolist()),
        labels=tuple(torch.searchsorted(shown, labels[rows]).tolist()),
        networks={who: points for who, (points, _) in maps.items()},
        trustworthiness={who: trust for who, (_, trust) in maps.items()},
    )


def _common_labels(gathered: Mapping[str, Gathered]) -> Tensor:
    first, *others = (each.labels for each in gathered.values())
    if not all(torch.equal(first, other) for other in others):
        raise DataError("a map of embeddings compares networks on the same images, and these were gathered on others.")
    return first


def _spread(present: Tensor, limit: int) -> Tensor:
    places = torch.linspace(0, len(present) - 1, min(limit, len(present)), dtype=torch.float64)
    return present[places.round().long()]


def _sample(labels: Tensor, shown: Tensor, limit: int, seed: int) -> Tensor:
    """Positions, sorted, of at most ``limit`` samples of the classes ``shown``."""
    rows = torch.isin(labels, shown).nonzero().flatten()
    return rows if len(rows) <= limit else rows[choose(labels[rows], limit, seed)]


def _method(count: int, shown: int, present: int, width: int) -> str:
    reduced = f", PCA to {_DIMENSIONS} dimensions first where the embedding has more" if width > _DIMENSIONS else ""
    some = f"; {shown} of {present} classes, at even distances in their order" if shown < present else ""
    return f"t-SNE of {count} samples{reduced}{some}"


def _map(
    who: str, embedding: Tensor, perplexity: float, seed: int
) -> tuple[tuple[tuple[float, float], ...], float | None]:
    from sklearn.manifold import trustworthiness

    if not embedding.isfinite().all():
        raise DataError(f"the embedding of {who} has values that are NaN or infinite, so that it cannot be drawn.")
    principal = _principal(embedding)
    if principal is None:
        return ((0.0, 0.0),) * len(embedding), None
    points = _tsne(principal, perplexity, seed)
    # Fewer than half of the samples, or the measure is not defined.
    neighbours = min(_NEIGHBOURS, (len(points) - 1) // 2)
    trust = float(trustworthiness(embedding.double().numpy(), points, n_neighbors=neighbours))
    # The sum turns -0.0 into 0.0.
    return tuple((x, y) for x, y in (np.round(points, 2) + 0.0).tolist()), trust


def _principal(embedding: Tensor) -> _Points | None:
    """(N, 2 to 50) principal coordinates, of unit variance along the first; None where all rows are equal."""
    rows = embedding.double()
    if (rows == rows[0]).all():
        return None
    # t-SNE does not see the scale, but its distances are float32 and would leave their range.
    rows = rows / rows.abs().max()
    left, lengths, _ = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    # Either sign of a column is right; the one that makes its largest entry positive is the same on every machine.
    largest = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
    found = (left * largest.sign() * lengths / lengths[0])[:, :_DIMENSIONS] * len(rows) ** 0.5
    return torch.nn.functional.pad(found, (0, max(0, 2 - found.shape[1]))).numpy()


def _tsne(principal: _Points, perplexity: float, seed: int) -> _Points:
    """(N, 2) points that begin as the first two principal coordinates, made very small."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    model = TSNE(2, perplexity=perplexity, init=_SMALL * principal[:, :2], random_state=seed, n_jobs=1)
    # Its OpenMP threads wait for each other in a loop: with other work on the machine two take ten times as long as one.
    with threadpool_limits(1):
        return np.asarray(model.fit_transform(principal), dtype=np.float64)

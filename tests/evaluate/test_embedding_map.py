"""Maps of embeddings: the same samples for all networks, near where they were near, and no crash on odd ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from torch import Tensor

from limbeck.errors import DataError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.embedding_map import EmbeddingMap, embedding_map
from limbeck.signals import Signals

NAMES = [f"class {number}" for number in range(30)]


def gathered(embedding: Tensor | None, labels: Tensor) -> Gathered:
    return Gathered(Signals(logits=torch.zeros(len(labels), len(NAMES)), embedding=embedding), labels)


def clusters(labels: Tensor, width: int, spread: float = 0.3, seed: int = 0) -> Gathered:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(NAMES), width, generator=generator)[labels]
    return gathered(rows + spread * torch.randn(len(labels), width, generator=generator), labels)


@pytest.fixture(scope="module")
def pair() -> tuple[dict[str, Gathered], EmbeddingMap]:
    labels = torch.arange(150) % 3
    networks = {
        "teacher": clusters(labels, 64),
        "student": clusters(labels, 8, spread=1.0, seed=1),
        "unknown": gathered(None, labels),
    }
    return networks, embedding_map(networks, NAMES, limit=90)


def test_networks_with_an_embedding_are_shown_on_the_same_samples(
    pair: tuple[dict[str, Gathered], EmbeddingMap],
) -> None:
    networks, found = pair
    assert set(found.networks) == set(found.trustworthiness) == {"teacher", "student"}
    assert {len(points) for points in found.networks.values()} == {len(found.labels)} == {90}
    assert found.classes == ("class 0", "class 1", "class 2")
    assert [found.labels.count(label) for label in range(3)] == [30, 30, 30]
    assert found.perplexity == pytest.approx(89 / 3)
    assert found.method == "t-SNE of 90 samples, PCA to 50 dimensions first where the embedding has more"
    assert embedding_map(networks, NAMES, limit=90) == found


def test_clusters_of_the_embedding_are_clusters_of_the_map(pair: tuple[dict[str, Gathered], EmbeddingMap]) -> None:
    _, found = pair
    points, labels = np.array(found.networks["teacher"]), np.array(found.labels)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(len(points), np.inf))
    assert (labels[distances.argmin(axis=1)] == labels).all()
    assert all(value == round(value, 2) for point in found.networks["teacher"] for value in point)


def test_trustworthiness_is_that_of_the_map_and_the_whole_embedding() -> None:
    each = clusters(torch.arange(60) % 3, 80)
    found = embedding_map({"one": each}, NAMES)
    assert each.embedding is not None
    expected = trustworthiness(each.embedding.numpy(), np.array(found.networks["one"]), n_neighbors=10)
    assert found.trustworthiness["one"] == pytest.approx(expected, abs=2e-3)  # its points are rounded
    assert expected > 0.8


def test_of_many_classes_some_at_even_distances_are_shown_and_said() -> None:
    labels = torch.arange(30).repeat(8)
    found = embedding_map({"one": clusters(labels, 5)}, NAMES, class_limit=4, limit=20)
    assert found.classes == ("class 0", "class 10", "class 19", "class 29")
    assert found.method == "t-SNE of 20 samples; 4 of 30 classes, at even distances in their order"
    assert sorted(set(found.labels)) == [0, 1, 2, 3]


ODD = {
    "two points": torch.eye(4)[torch.arange(24) % 2],
    "one apart": torch.eye(24)[:, :1].expand(24, 3),
    "one dimension": torch.arange(24.0)[:, None],
    "next to constant": 1 + 1e-7 * (torch.arange(72) % 5).reshape(24, 3),
    "huge": 1e38 * torch.rand(24, 4, generator=torch.Generator().manual_seed(0)),
    "tiny": 1e-38 * torch.rand(24, 4, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_embeddings_are_drawn_without_a_warning(name: str) -> None:
    found = embedding_map({"one": gathered(ODD[name], torch.arange(24) % 3)}, NAMES)
    assert all(math.isfinite(value) for point in found.networks["one"] for value in point)
    assert len(set(found.networks["one"])) > 1
    assert 0 <= (found.trustworthiness["one"] or -1) <= 1


def test_a_constant_embedding_lies_at_the_origin_and_has_no_trustworthiness() -> None:
    found = embedding_map({"one": gathered(torch.full((12, 3), 0.1), torch.arange(12) % 3)}, NAMES)
    assert set(found.networks["one"]) == {(0.0, 0.0)}
    assert found.trustworthiness == {"one": None}


def test_a_split_of_one_class_is_drawn() -> None:
    found = embedding_map({"one": clusters(torch.full((10,), 7), 5)}, NAMES)
    assert (found.classes, set(found.labels), len(found.networks["one"])) == (("class 7",), {0}, 10)


def test_what_cannot_be_drawn_is_said() -> None:
    labels = torch.arange(9) % 3
    with pytest.raises(DataError, match="needs 10 images or more, and there are 9"):
        embedding_map({"one": clusters(labels, 5)}, NAMES)
    with pytest.raises(DataError, match="no network's classifier is known"):
        embedding_map({"one": gathered(None, labels)}, NAMES)
    many = clusters(torch.arange(20) % 3, 5)
    with pytest.raises(DataError, match="were gathered on others"):
        embedding_map({"one": many, "other": replace(many, labels=many.labels.flip(0))}, NAMES)
    with pytest.raises(DataError, match="the embedding of one has values that are NaN or infinite"):
        embedding_map({"one": gathered(torch.full((20, 2), math.nan), many.labels)}, NAMES)

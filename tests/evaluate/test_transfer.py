"""Probes on embeddings: the frozen one leaves everything alone, the authors' one moves its own copy's statistics."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from limbeck.data import ImageData, Preprocess, ResidentBatches, Views, eval_batches
from limbeck.errors import DataError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.transfer import authors_probe, frozen_probe
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


def blobs(count: int, seed: int, noise: float = 0.6) -> Gathered:
    """Three clusters on directions of their own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    rows = torch.eye(3)[labels] @ torch.tensor([[2.0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 2, 1]])
    return Gathered(Signals(logits=rows, embedding=rows + noise * torch.randn(count, 4, generator=generator)), labels)


def test_both_classifiers_tell_clusters_apart() -> None:
    found = frozen_probe(blobs(300, 0), blobs(60, 1), blobs(200, 2))
    assert (found.train, found.validation, found.test) == (300, 60, 200)
    assert found.logistic.accuracy > 0.93
    assert found.knn.accuracy > 0.93
    assert found.logistic.setting in found.logistic.settings
    clean = frozen_probe(blobs(300, 0, 0.01), blobs(60, 1, 0.01), blobs(200, 2, 0.01))
    assert (clean.logistic.accuracy, clean.knn.accuracy) == (1.0, 1.0)
    assert clean.knn.setting == 1  # of equal ones, the fewest


def test_one_neighbour_is_scikit_learns() -> None:
    train, validation, test = blobs(100, 0), blobs(1, 1), blobs(200, 2)
    found = frozen_probe(train, validation, test)
    both = [torch.cat([getattr(train, name), getattr(validation, name)]) for name in ("embedding", "labels")]
    model = KNeighborsClassifier(int(found.knn.setting), metric="cosine", weights=lambda d: 1 - d).fit(*both)
    assert found.knn.accuracy == pytest.approx(model.score(test.embedding, test.labels))


def test_few_images_leave_out_many_neighbours_and_one_class_is_said() -> None:
    found = frozen_probe(blobs(12, 0), blobs(6, 1), blobs(20, 2))
    assert found.knn.settings == (1, 5)
    single = Gathered(blobs(12, 0).signals, torch.zeros(12, dtype=torch.int64))
    with pytest.raises(DataError, match="two classes"):
        frozen_probe(single, single, single)
    bare = Gathered(Signals(logits=torch.zeros(4, 2)), torch.arange(4) % 2)
    with pytest.raises(DataError, match="classifier is not known"):
        frozen_probe(bare, bare, bare)


def test_the_authors_protocol_adapts_a_copy(learned: nn.Module, digits: ImageData) -> None:
    assert digits.test is not None
    tapped = Tapped(learned, classifier="classifier")
    tapped.eval()
    before = {name: value.clone() for name, value in learned.state_dict().items()}
    inverted = ResidentBatches(digits.train, Views(), 64, 0)

    def turned(batches: Iterable[Batch]) -> list[Batch]:
        return [Batch(255 - batch.inputs, batch.labels) for batch in batches]

    found = authors_probe(
        tapped,
        Preprocess(digits.mean, digits.std),
        lambda epoch: turned(inverted.epoch(epoch)),
        turned(eval_batches(digits.test, 200)),
        classes=10,
        epochs=12,
    )
    tapped.close()
    assert found.batch_norms == 2
    assert (found.train, found.test, found.epochs) == (len(inverted) * 64, len(digits.test), 12)
    assert found.accuracy > 0.6
    assert not learned.training
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())
    assert all(isinstance(value, Tensor) for value in before.values())

"""What a network's embedding is worth on other data: nothing of the network is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import DataError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.kinds import Count, Number, Share
from limbeck.signals import Batch
from limbeck.taps import Tapped

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
NEIGHBOURS = (1, 5, 20)
AUTHORS_EPOCHS = 120
AUTHORS_BATCH = 64
_LR, _MOMENTUM, _WEIGHT_DECAY = 0.05, 0.9, 5e-4
# Of 120 epochs, as in the authors' code: 30, 60 and 90.
_MILESTONES = (0.25, 0.5, 0.75)
_ITERATIONS = 1000
_ROWS = 1024


@dataclass(frozen=True)
class Probe:
    """Accuracy in [0, 1] on the other data's test split, and the setting that did best on its validation split."""

    accuracy: Share
    setting: Number
    settings: tuple[Number, ...]


@dataclass(frozen=True)
class FrozenProbe:
    """A frozen network's embeddings, extracted once in eval mode, under two classifiers.

    logistic: logistic regression on standardised embeddings; its setting is C, the inverse strength of the L2 penalty. knn: the
    majority of the k nearest by cosine, each neighbour weighing its similarity; its setting is k. Both settings are chosen on
    the ``validation`` images, then fitted on these and the ``train`` ones together.
    """

    train: Count
    validation: Count
    test: Count
    logistic: Probe
    knn: Probe


@dataclass(frozen=True)
class AuthorsProbe:
    """The protocol of the ICD authors' code, in which the network is not frozen.

    The network is in training mode, so its batch norms see each batch's statistics and re-estimate their running ones on the
    other data; a linear layer is trained by SGD on augmented images. Its weights do not change. accuracy: on the test split
    after the last epoch. batch_norms: how many there are; with none the network is frozen here too.
    """

    train: Count
    test: Count
    epochs: Count
    accuracy: Share
    batch_norms: Count


@dataclass(frozen=True)
class Transfer:
    """Transfer of one network to other data by the protocols that were asked for."""

    frozen: FrozenProbe | None
    authors: AuthorsProbe | None


def frozen_probe(train: Gathered, validation: Gathered, test: Gathered) -> FrozenProbe:
    """Fit and score both classifiers on embeddings of other data.

    Raises:
        DataError: a split has no embeddings, or the training split has one class.
    """
    splits = (train, validation, test)
    if any(split.embedding is None for split in splits):
        raise DataError("transfer needs embeddings, and the network's classifier is not known.")
    if len(train.labels.unique()) < 2:
        raise DataError("a probe needs training images of two classes or more.")
    arrays = [(split.embedding, split.labels) for split in splits]
    return FrozenProbe(
        len(train),
        len(validation),
        len(test),
        logistic=_chosen(STRENGTHS, _logistic, *arrays),
        knn=_chosen([k for k in NEIGHBOURS if k <= len(train)], _knn, *arrays),
    )


_Rows = tuple[Any, Tensor]  # embeddings (N, D) and labels (N,)
_Fit = Callable[[_Rows, Tensor, float], Tensor]


def _chosen(settings: Sequence[float], fit: _Fit, train: _Rows, validation: _Rows, test: _Rows) -> Probe:
    found = [(_accuracy(fit(train, validation[0], setting), validation[1]), setting) for setting in settings]
    # The first of equals: the strongest penalty, the fewest neighbours.
    best = max(found, key=lambda pair: pair[0])[1]
    both = (torch.cat([train[0], validation[0]]), torch.cat([train[1], validation[1]]))
    return Probe(_accuracy(fit(both, test[0], best), test[1]), best, tuple(settings))


def _accuracy(predictions: Tensor, labels: Tensor) -> float:
    return (predictions == labels).double().mean().item()


def _logistic(train: _Rows, rows: Tensor, strength: float) -> Tensor:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train[0].numpy())
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        # After so many steps what is left to gain is below what is told.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaler.transform(train[0].numpy()), train[1].numpy())
    return torch.from_numpy(np.asarray(model.predict(scaler.transform(rows.numpy()))))


def _knn(train: _Rows, rows: Tensor, neighbours: float) -> Tensor:
    known, labels = losses.unit(train[0]), train[1]
    classes = int(labels.max()) + 1
    found = []
    for part in losses.unit(rows).split(_ROWS):
        similarity, nearest = (part @ known.T).topk(int(neighbours), dim=1)
        votes = torch.zeros(len(part), classes).scatter_add_(1, labels[nearest], similarity.clamp(min=0))
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def authors_probe(
    tapped: Tapped,
    preprocess: nn.Module,
    train: Callable[[int], Iterable[Batch]],
    test: Iterable[Batch],
    *,
    classes: int,
    epochs: int = AUTHORS_EPOCHS,
    seed: int = 0,
) -> AuthorsProbe:
    """The authors' protocol on a copy of the network; the network itself stays as it is.

    tapped: gives embeddings. preprocess: normalises with the other data's statistics. train: augmented batches of 64 images of
    an epoch. epochs: 120 there; the learning rate is divided by ten after a quarter, a half and three quarters of them.
    """
    network = copy.deepcopy(tapped)
    device = next(network.parameters()).device
    first = next(iter(train(0)))
    width = _embedding(network.eval(), preprocess, first.to(device)).shape[1]
    head = _head(width, classes, seed).to(device)
    optimizer = torch.optim.SGD(head.parameters(), _LR, _MOMENTUM, weight_decay=_WEIGHT_DECAY)
    milestones = [max(1, round(share * epochs)) for share in _MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    seen = 0
    for epoch in range(epochs):
        network.train()
        for batch in train(epoch):
            rows = _embedding(network, preprocess, batch.to(device))
            loss = losses.cross_entropy(head(rows), batch.labels.to(device)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(batch) * (epoch == 0)
        schedule.step()
    right, count = _count_right(network.eval(), preprocess, head, test, device)
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    return AuthorsProbe(seen, count, epochs, right / count, norms)


def _head(width: int, classes: int, seed: int) -> nn.Linear:
    head = nn.Linear(width, classes)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.01, generator=torch.Generator().manual_seed(seed))
        head.bias.zero_()
    return head


@torch.no_grad()
def _embedding(network: Tapped, preprocess: nn.Module, batch: Batch) -> Tensor:
    embedding: Tensor | None = network(preprocess(batch.inputs)).embedding
    if embedding is None:
        raise DataError("transfer needs embeddings, and the network's classifier is not known.")
    return embedding.float()


def _count_right(
    network: Tapped, preprocess: nn.Module, head: nn.Linear, batches: Iterable[Batch], device: torch.device
) -> tuple[int, int]:
    right = count = 0
    for batch in batches:
        rows = _embedding(network, preprocess, batch.to(device))
        right += int((head(rows).argmax(dim=1) == batch.labels.to(device)).sum())
        count += len(batch)
    return right, count

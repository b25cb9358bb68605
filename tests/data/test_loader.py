from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from limbeck.data import LoaderBatches
from limbeck.data.loader import read_batch
from limbeck.errors import DataError, SettingError
from limbeck.signals import Batch, Batches

X, Y = torch.arange(10.0).view(10, 1), torch.arange(10) % 2


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """As augmentation that draws from all three global generators."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return X[i] + torch.rand(1) + np.random.rand() + random.random(), Y[i]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X, Y, strict=True))


def inputs(batches: Batches, epoch: int, start: int = 0) -> list[list[float]]:
    return [batch.inputs.flatten().tolist() for batch in batches.epoch(epoch, start)]


@pytest.mark.parametrize("generator", [None, torch.Generator()])
@pytest.mark.parametrize("dataset", [Noisy(), TensorDataset(X, Y)])
def test_epochs_replay(dataset: Dataset[Any], generator: torch.Generator | None) -> None:
    batches = LoaderBatches(DataLoader(dataset, 3, shuffle=True, generator=generator), seed=4)
    assert batches.batch_size == 3
    assert len(batches) == 4
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    full = inputs(batches, 1)
    assert inputs(batches, 1) == full
    assert inputs(batches, 1, start=2) == full[2:]
    assert inputs(batches, 2) != full
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_distributed_sampler() -> None:
    data = TensorDataset(X, Y)
    parts = []
    for rank in range(2):
        loader = DataLoader(data, 2, sampler=DistributedSampler(data, 2, rank, shuffle=True))
        batches = LoaderBatches(loader, world_size=2)
        assert batches.batch_size == 4
        parts.append([value for batch in inputs(batches, 1) for value in batch])
        assert inputs(batches, 1) != inputs(batches, 2)
    assert sorted(parts[0] + parts[1]) == X.flatten().tolist()


@pytest.mark.parametrize(
    "item",
    [
        (X, Y),
        [X, Y],
        (X, Y, Y),
        {"image": X, "label": Y},
        {"pixel_values": X, "labels": Y, "index": Y},
        {"inputs": X, "labels": Y},
        Batch(X, Y),
    ],
)
def test_what_is_read(item: Any) -> None:
    batch = read_batch(item)
    assert torch.equal(batch.inputs, X)
    assert torch.equal(batch.labels, Y)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (X, r"must yield \(inputs, labels\).*got torch.float32"),
        ((X,), "got tuple of 1"),
        ((X, Y, Y, Y), "got tuple of 4"),
        ("text", "must yield"),
        ({"pixels": X, "label": Y}, "needs image or pixel_values or inputs; it has pixels, label"),
        ({"image": X}, "needs label or labels"),
        ((X.tolist(), Y), "inputs must be a tensor, got list of 10"),
        ((X, Y.int()), r"labels must be an int64 tensor \(10,\).*torch.int32"),
        ((X, Y.view(-1, 1)), r"labels must be an int64 tensor.*\(10, 1\)"),
        ((X, Y[:3]), r"got torch.int64 \(3,\)"),
        ((X, Y, X.flatten()), "index must be an int64 tensor"),
    ],
)
def test_what_cannot_be_read(item: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_batch(item)


def test_loader_errors() -> None:
    with pytest.raises(SettingError, match="all 2 processes the same samples"):
        LoaderBatches(DataLoader(TensorDataset(X, Y), 2), world_size=2)
    with pytest.raises(SettingError, match="does not tell its batch size"):
        LoaderBatches(DataLoader(TensorDataset(X, Y), batch_size=None))
    stream = LoaderBatches(DataLoader(Stream(), 5), world_size=2)
    assert stream.batch_size == 10
    with pytest.raises(DataError, match="no length"):
        len(stream)
    assert LoaderBatches(DataLoader(TensorDataset(X, Y), batch_size=None), batch_size=7).batch_size == 7

"""Mean average precision against scikit-learn, query by query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from limbeck import losses
from limbeck.errors import DataError
from limbeck.evaluate.retrieval import retrieval


@given(st.integers(4, 60), st.integers(2, 6), st.integers(0, 1000))
def test_map_is_that_of_scikit_learn(count: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, 5, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    labels[:3] = torch.tensor([0, 0, 1])
    found = retrieval(rows, labels)
    unit = torch.nn.functional.normalize(rows).numpy()
    precisions, first = [], []
    for query in range(count):
        others = [n for n in range(count) if n != query]
        relevant = [bool(labels[n] == labels[query]) for n in others]
        if any(relevant):
            similarity = unit[others] @ unit[query]
            precisions.append(average_precision_score(relevant, similarity))
            first.append(relevant[int(np.argmax(similarity))])
    assert found.queries == len(precisions)
    assert found.map == pytest.approx(np.mean(precisions), abs=1e-6)
    assert found.precision_at_1 == pytest.approx(np.mean(first))


@given(st.integers(4, 40), st.integers(2, 4), st.integers(1, 3), st.integers(0, 1000))
def test_equals_keep_the_order_of_the_images(count: int, classes: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 2, (count, width), generator=generator).float()  # most are equal to another, some are 0
    labels = torch.randint(0, classes, (count,), generator=generator)
    labels[:3] = torch.tensor([0, 0, 1])
    found = retrieval(rows, labels)
    unit = losses.unit(rows)
    precisions, first = [], []
    for query in range(count):
        others = torch.tensor([n for n in range(count) if n != query])
        order = others[(unit @ unit.T)[query, others].argsort(descending=True, stable=True)]
        relevant = (labels[order] == labels[query]).double()
        if relevant.any():
            ranked = relevant.cumsum(0) / torch.arange(1, count)
            precisions.append(((ranked * relevant).sum() / relevant.sum()).item())
            first.append(relevant[0].item())
    assert (found.queries, found.map) == (len(precisions), pytest.approx(np.mean(precisions)))
    assert found.precision_at_1 == pytest.approx(np.mean(first))


def test_many_queries_are_those_of_each_class_alone() -> None:
    labels = torch.arange(700) % 7
    found = retrieval(
        torch.eye(7)[labels] + 0.01 * torch.randn(700, 7, generator=torch.Generator().manual_seed(0)), labels
    )
    assert found.queries == 700
    assert found.map == pytest.approx(1.0)
    assert found.chance == pytest.approx(99 / 699)


def test_one_class_and_single_images_are_said() -> None:
    with pytest.raises(DataError, match="with one class every image is relevant"):
        retrieval(torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match="a class with two images"):
        retrieval(torch.randn(4, 2), torch.arange(4))

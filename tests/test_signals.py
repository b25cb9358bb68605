"""Signals and batches: copies, rows, and what passes through torch as the tensors it holds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils import _pytree as pytree

from limbeck.signals import Batch, Signals


def full_signals() -> Signals:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, requires_grad=True)  # noqa: E731
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    return Signals(logits=draw(3, 2, 4), embedding=draw(3, 5), features={"a": draw(3, 2, 2, 2)}, mask=mask)


def full_batch() -> Batch:
    n = 4
    return Batch(
        torch.arange(n * 2).reshape(n, 2),
        torch.arange(n) + 10,
        index=torch.arange(n) + 20,
        view=torch.arange(n) + 30,
        weight=torch.linspace(0, 1, n),
    )


def test_detach_cuts_every_tensor_from_the_graph_and_keeps_the_values() -> None:
    signals = full_signals()
    cut = signals.detach()
    for before, after in ((signals.logits, cut.logits), (signals.embedding, cut.embedding)):
        assert before is not None
        assert after is not None
        assert not after.requires_grad
        assert torch.equal(before, after)
    assert not cut.features["a"].requires_grad
    assert cut.mask is signals.mask


def test_map_leaves_the_mask_and_absent_signals_alone() -> None:
    mapped = Signals(embedding=torch.ones(2, 3), mask=torch.ones(2, 1, dtype=torch.bool)).map(lambda value: value * 5)
    assert mapped.logits is None
    assert mapped.features == {}
    assert torch.equal(mapped.embedding, torch.full((2, 3), 5.0))
    assert mapped.mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("signals", "names"),
    [
        (Signals(), set()),
        (Signals(logits=torch.ones(1, 2)), {"logits"}),
        (full_signals(), {"logits", "embedding", "features", "mask"}),
    ],
)
def test_available_names_what_is_there(signals: Signals, names: set[str]) -> None:
    assert signals.available() == names


@pytest.mark.parametrize("value", [full_signals(), full_batch(), Signals(logits=torch.ones(1, 2))])
def test_they_are_trees_of_tensors_for_torch(value: Signals | Batch) -> None:
    leaves, spec = pytree.tree_flatten(value)
    again = pytree.tree_unflatten(list(leaves), spec)
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) >= 1
    assert type(again) is type(value)
    for field in dataclasses.fields(value):
        assert getattr(again, field.name) is getattr(value, field.name) or field.name == "features"


def test_signals_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        full_signals().logits = torch.zeros(1)  # type: ignore[misc]


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0]), torch.tensor([True, False, False, True])])
def test_rows_of_a_batch_keep_each_samples_label_index_view_and_weight(rows: slice | torch.Tensor) -> None:
    batch = full_batch()
    part = batch[rows]
    expected = torch.arange(4)[rows]
    assert len(part) == 2
    assert torch.equal(part.labels, expected + 10)
    assert torch.equal(part.index, expected + 20)
    assert torch.equal(part.view, expected + 30)
    assert torch.equal(part.inputs, batch.inputs[expected])
    assert torch.equal(part.weight, batch.weight[expected])


def test_a_batch_without_the_optional_parts_stays_without_them() -> None:
    moved = Batch(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)).to("cpu")
    assert (moved.index, moved.view, moved.weight) == (None, None, None)


def test_to_moves_every_tensor() -> None:
    moved = full_batch().to("meta")
    assert {getattr(moved, field.name).device.type for field in dataclasses.fields(moved)} == {"meta"}

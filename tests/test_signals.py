"""Signals and batches: copies, rows, and what passes through torch as the tensors it holds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils import _pytree as pytree

from limbeck.signals import Batch, Signals, paired


def full_signals() -> Signals:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, requires_grad=True)  # noqa: E731
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    return Signals(
        logits=draw(3, 2, 4),
        embedding=draw(3, 5),
        features={"z": draw(3, 2, 4, 4), "a": draw(3, 2, 2, 2)},
        preactivations={"z": draw(3, 2, 4, 4), "a": draw(3, 2, 2, 2)},
        stem=draw(3, 1, 4, 4),
        embedding_map=draw(3, 5, 2, 2),
        attacked=draw(3, 4),
        peers=draw(3, 2, 4),
        trunk=draw(3, 6, 2, 2),
        documents=draw(3, 2, 5),
        extra=draw(3, 5),
        mask=mask,
        constants={"classifier.weight": draw(4, 5), "classifier.bias": draw(4)},
    )


def full_batch() -> Batch:
    n = 4
    return Batch(
        torch.arange(n * 2).reshape(n, 2),
        torch.arange(n) + 10,
        index=torch.arange(n) + 20,
        view=torch.arange(n) + 30,
        weight=torch.linspace(0, 1, n),
        attacked=torch.arange(n) - 1,
        other_labels=torch.tensor([1, 2, 3, 4]),
        share=torch.full((4,), 0.5),
        excluded=torch.zeros(4, 3, dtype=torch.bool),
        unscored=torch.ones(4, 3, dtype=torch.bool),
    )


ROWS = {
    *("logits", "embedding", "stem", "embedding_map", "attacked", "peers", "trunk", "documents", "extra"),
    *(f"{group}.{name}" for group in ("features", "preactivations") for name in "za"),
}


def test_detach_cuts_every_tensor_from_the_graph_and_keeps_the_values() -> None:
    signals = full_signals()
    cut = signals.detach()
    assert signals.tensors().keys() == cut.tensors().keys() == ROWS
    for name, before in signals.tensors().items():
        after = cut.tensors()[name]
        assert before.requires_grad
        assert not after.requires_grad
        assert torch.equal(before, after)
    assert cut.mask is signals.mask
    assert cut.constants is signals.constants


def test_rows_of_signals_are_rows_of_every_tensor_and_constants_stay_whole() -> None:
    signals = full_signals()
    part = signals.map(lambda value: value[1:])
    assert {len(value) for value in part.tensors().values()} == {2}
    for name, value in part.tensors().items():
        assert torch.equal(value, signals.tensors()[name][1:])
    assert part.constants["classifier.weight"].shape == (4, 5)


def test_tensors_are_named_after_where_they_are_and_absent_ones_are_left_out() -> None:
    signals = full_signals()
    tensors = signals.tensors()
    assert tensors["embedding"] is signals.embedding
    assert tensors["features.a"] is signals.features["a"]
    assert tensors["preactivations.z"] is signals.preactivations["z"]
    assert Signals().tensors() == {}
    assert Signals(mask=signals.mask, constants=signals.constants).tensors() == {}
    assert list(Signals(stem=signals.stem).tensors()) == ["stem"]


def test_every_field_is_a_tensor_of_rows_the_mask_or_a_constant() -> None:
    # A field that is added must be thought of in map and in tensors.
    names = {name.split(".")[0] for name in full_signals().tensors()} | {"mask", "constants"}
    assert names == {field.name for field in dataclasses.fields(Signals)}


def test_paired_maps_are_those_of_both_in_the_students_order() -> None:
    student = {name: torch.full((1,), number) for number, name in enumerate(["c", "a", "own", "b"])}
    teacher = {name: torch.full((1,), 10 + number) for number, name in enumerate(["b", "deep", "a", "c"])}
    pairs = paired(student, teacher)
    assert [(name, int(one), int(other)) for name, one, other in pairs] == [("c", 0, 13), ("a", 1, 12), ("b", 3, 10)]
    assert paired(student, {}) == paired({}, teacher) == []


def test_map_leaves_the_mask_and_absent_signals_alone() -> None:
    mapped = Signals(embedding=torch.ones(2, 3), mask=torch.ones(2, 1, dtype=torch.bool)).map(lambda value: value * 5)
    assert mapped.logits is None
    assert mapped.stem is None
    assert mapped.embedding_map is None
    assert mapped.features == mapped.preactivations == {}
    assert torch.equal(mapped.embedding, torch.full((2, 3), 5.0))
    assert mapped.mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("signals", "names"),
    [
        (Signals(), set()),
        (Signals(logits=torch.ones(1, 2)), {"logits"}),
        (Signals(stem=torch.ones(1, 2, 1, 1), features={}), {"stem"}),
        (
            Signals(preactivations={"a": torch.ones(1)}, embedding_map=torch.ones(1)),
            {"preactivations", "embedding_map"},
        ),
        (Signals(constants={"classifier.weight": torch.ones(2, 2)}), {"classifier"}),
        (Signals(constants={"a.shift": torch.ones(2), "a.scale": torch.ones(2)}), set()),
        (
            full_signals(),
            {
                "attacked",
                *("logits", "embedding", "features", "preactivations", "stem", "embedding_map", "mask"),
                *("peers", "trunk", "documents", "extra"),
                "classifier",
            },
        ),
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
        one, other = getattr(again, field.name), getattr(value, field.name)
        if isinstance(one, dict):
            # From shallow to deep: their order is part of what they say.
            assert list(one) == list(other)
            assert all(one[name] is other[name] for name in one)
        else:
            assert one is other


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


def test_the_views_of_a_sample_are_known_of_a_whole_batch_only() -> None:
    batch = dataclasses.replace(full_batch(), copies=2)
    assert batch.map(lambda value: value + 0).copies == batch.to("cpu").copies == 2
    leaves, spec = pytree.tree_flatten(batch)
    assert pytree.tree_unflatten(list(leaves), spec).copies == 2
    assert batch[1:].copies == 1
    assert full_batch().copies == 1


def test_some_samples_are_taken_in_all_of_their_views() -> None:
    batch = dataclasses.replace(full_batch(), copies=2, mixed=(False, True))
    part = batch.samples(slice(1, 2))
    assert part.labels.tolist() == [11, 13]
    assert torch.equal(part.inputs, batch.inputs[[1, 3]])
    assert (part.copies, part.mixed, len(part)) == (2, (False, True), 2)
    assert torch.equal(full_batch().samples(slice(1, 3)).labels, full_batch()[1:3].labels)


def test_mixtures_are_known_of_a_whole_batch_only() -> None:
    batch = dataclasses.replace(full_batch(), mixed=(True,))
    assert batch.to("cpu").mixed == (True,)
    leaves, spec = pytree.tree_flatten(batch)
    assert pytree.tree_unflatten(list(leaves), spec).mixed == (True,)
    assert batch[1:].mixed == ()


def test_a_batch_without_the_optional_parts_stays_without_them() -> None:
    moved = Batch(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)).to("cpu")
    assert (moved.index, moved.view, moved.weight) == (None, None, None)


def test_to_moves_every_tensor() -> None:
    moved = full_batch().to("meta")
    tensors = [
        getattr(moved, field.name) for field in dataclasses.fields(moved) if field.name not in ("copies", "mixed")
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}

"""K views of each sample that come again, and the walk over all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import FileBatches, ResidentBatches, Slots, load_data, parse_view_sets, parse_views
from limbeck.data.seeds import stream
from limbeck.data.slots import fixed_views
from limbeck.errors import SettingError
from limbeck.signals import Batch

from .conftest import resident_split


def seen(batches: ResidentBatches | FileBatches, epoch: int) -> dict[tuple[int, int], Batch]:
    """Each row of an epoch by (index, view)."""
    rows = {}
    for batch in batches.epoch(epoch):
        assert batch.index is not None
        assert batch.view is not None
        for row in range(len(batch)):
            rows[int(batch.index[row]), int(batch.view[row])] = batch[row : row + 1]
    return rows


def resident(cycle: int | None, views: str = "crop=2,flip", seed: int = 0) -> ResidentBatches:
    return ResidentBatches(resident_split(), parse_view_sets(views), 5, seed, drop_last=False, cycle=cycle)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_each_sample_has_different_views_in_range(samples: int, count: int, cycle: int, number: int) -> None:
    ids = fixed_views(samples, count, cycle, number)
    assert ids.shape == (samples, min(cycle, count))
    assert int(ids.min()) >= 0
    assert int(ids.max()) < count
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    assert torch.equal(ids, fixed_views(samples, count, cycle, number))


def test_every_view_is_as_likely_in_every_slot() -> None:
    samples, count = 20_000, 6
    for column in fixed_views(samples, count, 4, 0).T:
        frequencies = torch.bincount(column, minlength=count) / samples
        assert (frequencies - 1 / count).abs().max() < 5 * (1 / count / samples) ** 0.5


def test_view_sets_and_numbers_of_views_have_views_of_their_own() -> None:
    assert not torch.equal(fixed_views(50, 100, 4, 0), fixed_views(50, 100, 4, 1))
    assert not torch.equal(fixed_views(50, 100, 4, 0), fixed_views(50, 100, 5, 0)[:, :4])


def test_without_a_cycle_views_are_drawn_as_ever() -> None:
    (batch,) = ResidentBatches(resident_split(), parse_views("crop=2,flip"), 23, seed=3).epoch(4)
    assert batch.view is not None
    assert torch.equal(batch.view, torch.randint(50, (23,), generator=stream(3, 4, 1)))


def test_epochs_cycle_through_the_views_of_each_sample() -> None:
    batches = resident(3)
    epochs = [seen(batches, epoch).keys() for epoch in range(4)]
    assert epochs[0] == epochs[3]
    assert len(epochs[0] | epochs[1] | epochs[2]) == 3 * 23


def test_runs_with_other_seeds_see_the_same_views_in_another_order() -> None:
    one, two = (resident(3, seed=seed) for seed in (0, 1))
    assert seen(one, 1).keys() == seen(two, 1).keys()
    first, second = (next(iter(batches.epoch(1))) for batches in (one, two))
    assert not torch.equal(first.labels, second.labels) or not torch.equal(first.inputs, second.inputs)
    assert torch.equal(one.slots.ids, two.slots.ids)


@pytest.mark.parametrize("views", ["crop=2,flip", "none", "crop=2,flip | flip", "none | crop=1 | cutout=3"])
@pytest.mark.parametrize("cycle", [None, 1, 4])
def test_the_walk_gives_the_pixels_that_training_sees(views: str, cycle: int | None) -> None:
    batches, split = resident(cycle, views), resident_split()
    if cycle is None and "cutout" in views:
        batches = resident(2, views)
    slots = batches.slots
    entries = torch.arange(len(split) * len(slots))
    parts = [(part // len(slots), part % len(slots)) for part in entries.split(7)]
    found = {}
    for (positions, numbers), batch in zip(parts, batches.at(parts), strict=True):
        assert batch.index is not None
        assert batch.view is not None
        assert torch.equal(batch.index, split.index[positions])
        assert torch.equal(batch.view, slots.views_of(positions, numbers))
        for row in range(len(batch)):
            found[int(batch.index[row]), int(batch.view[row])] = batch[row : row + 1]
    assert len(found) == len(entries)
    for epoch in range(5):
        for key, row in seen(batches, epoch).items():
            assert torch.equal(row.inputs, found[key].inputs)
            assert torch.equal(row.labels, found[key].labels)


def test_without_a_cycle_the_slot_is_the_view() -> None:
    slots = resident(None, "crop=2 | flip").slots
    assert slots.ids.tolist() == [list(range(27))]
    assert slots.text == "crop=2 | flip at 8×8, all 27 views"


def test_views_that_are_too_many_ask_for_a_number() -> None:
    with pytest.raises(SettingError, match=r"'crop=4,randaugment=1.* are 22,680 in number, .*--views 16"):
        _ = resident(None, "crop=4,randaugment=1").slots
    assert len(resident(16, "crop=4,randaugment=1").slots) == 16


def test_fewer_views_than_the_cycle_are_all_shown() -> None:
    slots = resident(16, "flip | crop=4").slots
    assert len(slots) == 2 + 16
    assert sorted(slots.ids[5, :2].tolist()) == [0, 1]


@pytest.mark.parametrize("cycle", [0, -1, True, 2.0])
def test_a_cycle_that_is_no_number_of_views_is_refused(cycle: int) -> None:
    with pytest.raises(SettingError, match="cycle must be a whole number of at least 1"):
        resident(cycle)


def test_slots_of_all_samples_alike() -> None:
    slots = Slots(torch.tensor([[7, 9]]), "two")
    assert slots.views_of(torch.tensor([0, 5, 3]), torch.tensor([1, 0, 1])).tolist() == [9, 7, 9]


@pytest.mark.parametrize("workers", [0, 1])
def test_files_have_fixed_views_too(make_folder: Callable[..., Path], workers: int) -> None:
    split = load_data(make_folder(size=(80, 90)), image_size=72).train
    batches = FileBatches(split, (72, 72), 3, seed=0, drop_last=False, cycle=2, workers=workers)
    slots = batches.slots
    assert slots.ids.shape == (len(split), 2)
    assert slots.text == "resized crop of 0.08-1.0, flip, at 72×72, 2 fixed views of each sample"
    parts = [(torch.arange(len(split)), torch.full((len(split),), slot)) for slot in range(2)]
    walked = dict(enumerate(batches.at(parts)))
    for epoch in (1, 2):
        inputs = walked[epoch % 2].inputs
        rows = {int(i): row for row, i in enumerate(split.index)}
        for (index, view), row in seen(batches, epoch).items():
            assert view == int(slots.ids[rows[index], epoch % 2])
            assert torch.equal(row.inputs[0], inputs[rows[index]])


def test_files_without_a_cycle_have_too_many_views(make_folder: Callable[..., Path]) -> None:
    split = load_data(make_folder(size=(80, 90)), image_size=72).train
    with pytest.raises(SettingError, match="too many to store"):
        _ = FileBatches(split, (72, 72), 3, seed=0).slots
    plain = FileBatches(split, (72, 72), 3, seed=0, flip=False, scale=None)
    assert plain.slots.text == "centre, at 72×72, all 1 views"

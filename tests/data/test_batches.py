from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from limbeck.data import FileBatches, ImageSplit, ResidentBatches, Views, eval_batches, load_data
from limbeck.errors import DataError, SettingError
from limbeck.signals import Batch, Batches

from .conftest import resident_split

VIEWS = Views(crop=2, flip=True, cutout=3)


def same(one: list[Batch], two: list[Batch]) -> bool:
    names = ("inputs", "labels", "index", "view")
    return len(one) == len(two) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(one, two, strict=True) for name in names
    )


def joined(parts: list[list[Batch]]) -> list[Batch]:
    """The batches whose rows are those of all ranks, in the order of the ranks."""
    names = ("inputs", "labels", "index", "view")
    return [Batch(**{n: torch.cat([getattr(b, n) for b in rows]) for n in names}) for rows in zip(*parts, strict=True)]


def test_an_epoch_sees_every_sample_once() -> None:
    split = resident_split(23)
    batches: Batches = ResidentBatches(split, VIEWS, 5, seed=1, drop_last=False)
    epoch = list(batches.epoch(3))
    assert [len(batch) for batch in epoch] == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == split.index.tolist()  # type: ignore[misc]
    assert len(ResidentBatches(split, VIEWS, 5, seed=1)) == 4
    assert [len(batch) for batch in ResidentBatches(split, VIEWS, 5, seed=1).epoch(0)] == [5] * 4


def test_rows_belong_together_and_views_replay() -> None:
    split = resident_split()
    batches = ResidentBatches(split, VIEWS, 7, seed=0)
    for batch in batches.epoch(0):
        assert batch.index is not None
        assert batch.view is not None
        rows = batch.index - 100
        assert torch.equal(batch.labels, split.labels[rows])
        assert isinstance(split.images, torch.Tensor)
        assert torch.equal(batch.inputs, batches.views[0].apply(split.images[rows], batch.view))


def test_resume_from_the_middle() -> None:
    before = torch.get_rng_state()
    full = list(ResidentBatches(resident_split(), VIEWS, 4, seed=5).epoch(2))
    rest = list(ResidentBatches(resident_split(), VIEWS, 4, seed=5).epoch(2, start=3))
    assert same(full[3:], rest)
    assert list(ResidentBatches(resident_split(), VIEWS, 4, seed=5).epoch(2, start=5)) == []
    assert torch.equal(before, torch.get_rng_state())


def test_epochs_and_seeds_differ() -> None:
    batches = ResidentBatches(resident_split(), VIEWS, 4, seed=5)
    other = ResidentBatches(resident_split(), VIEWS, 4, seed=6)
    assert not same(list(batches.epoch(0)), list(batches.epoch(1)))
    assert not same(list(batches.epoch(0)), list(other.epoch(0)))


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_make_the_whole(drop_last: bool) -> None:
    split = resident_split(22)
    whole = list(ResidentBatches(split, VIEWS, 4, seed=1, drop_last=drop_last).epoch(0))
    parts = [
        list(ResidentBatches(split, VIEWS, 4, 1, rank=rank, world_size=2, drop_last=drop_last).epoch(0))
        for rank in range(2)
    ]
    assert same(joined(parts), whole)


def test_an_uneven_last_batch_is_trimmed_for_all_ranks() -> None:
    parts = [
        list(ResidentBatches(resident_split(23), VIEWS, 4, 1, rank=rank, world_size=2, drop_last=False).epoch(0))
        for rank in range(2)
    ]
    assert [[len(batch) for batch in part] for part in parts] == [[2] * 5 + [1]] * 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 24}, "batch_size=24 is larger than the 23 training images"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 5, "world_size": 2}, r"divisible by the number of processes \(2\), got 5"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank must be 0 to world_size - 1"),
    ],
)
def test_setting_errors(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        ResidentBatches(resident_split(23), VIEWS, seed=0, **settings)


def test_start_outside_the_epoch() -> None:
    with pytest.raises(SettingError, match="start must be 0 to 4"):
        ResidentBatches(resident_split(), VIEWS, 5, seed=0).epoch(0, start=5)


@pytest.fixture
def files(make_folder) -> ImageSplit:  # type: ignore[no-untyped-def]
    return load_data(make_folder(count=5, size=(80, 70)), val_fraction=0).train


def test_files_resume_replay_and_ranks(files: ImageSplit) -> None:
    before = torch.get_rng_state()
    batches: Batches = FileBatches(files, (16, 12), 4, seed=1, randaugment=1)
    full = list(batches.epoch(0))
    assert len(batches) == len(full) == 2
    assert full[0].inputs.shape == (4, 3, 16, 12)
    assert full[0].inputs.dtype == torch.uint8
    assert same(full, list(batches.epoch(0)))
    assert same(full[1:], list(batches.epoch(0, start=1)))
    assert not same(full, list(batches.epoch(1)))
    parts = [list(FileBatches(files, (16, 12), 4, 1, randaugment=1, rank=r, world_size=2).epoch(0)) for r in range(2)]
    assert same(joined(parts), full)
    assert torch.equal(before, torch.get_rng_state())


def test_workers_make_the_same_pixels(files: ImageSplit) -> None:
    alone = FileBatches(files, (16, 12), 4, seed=1)
    helped = FileBatches(files, (16, 12), 4, seed=1, workers=1)
    next(helped.epoch(5))
    assert same(list(alone.epoch(0)), list(helped.epoch(0)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_a_signal_to_the_run(files: ImageSplit, number: signal.Signals) -> None:
    batches = FileBatches(files, (16, 12), 4, seed=1, workers=1)
    epoch = batches.epoch(0)
    next(epoch)
    for worker in batches._loader._iterator._workers:  # type: ignore[union-attr]
        os.kill(worker.pid, number)
    assert len(list(epoch)) == 1
    assert len(list(batches.epoch(1))) == 2
    # Torch's own handler raises for a worker that a signal ended, wherever the test is then.
    usual = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for worker in batches._loader._iterator._workers:  # type: ignore[union-attr]
            os.kill(worker.pid, signal.SIGTERM)
            if number == signal.SIGTERM:  # the second
                worker.join(10)
                assert not worker.is_alive()
    finally:
        signal.signal(signal.SIGCHLD, usual)


def test_the_centre_alone_can_still_be_mirrored(files: ImageSplit) -> None:
    batches = FileBatches(files, (16, 12), 4, seed=1, scale=None)
    full = list(batches.epoch(0))
    assert same(full, list(batches.epoch(0)))
    centre = torch.cat([batch.inputs for batch in eval_batches(files, 4, image_size=(16, 12))])
    at = {int(position): row for row, position in enumerate(files.index)}
    for batch in full:
        for position, pixels in zip(batch.index, batch.inputs, strict=True):  # type: ignore[arg-type]
            plain = centre[at[int(position)]]
            assert torch.equal(pixels, plain) or torch.equal(pixels, plain.flip(-1))


def test_file_errors(files: ImageSplit) -> None:
    with pytest.raises(SettingError, match="use FileBatches"):
        ResidentBatches(files, VIEWS, 2, seed=0)
    with pytest.raises(SettingError, match="use ResidentBatches"):
        FileBatches(resident_split(), (8, 8), 2, seed=0)
    with pytest.raises(SettingError, match="scale must be two parts"):
        FileBatches(files, (8, 8), 2, seed=0, scale=(0.5, 0.1))
    Path(files.images[0]).write_bytes(b"gone")
    with pytest.raises(DataError, match=r"0\.png' cannot be read"):
        list(FileBatches(files, (8, 8), 10, seed=0).epoch(0))


def test_eval_covers_everything_in_order(files: ImageSplit) -> None:
    split = resident_split(10)
    whole = eval_batches(split, 4)
    assert [len(batch) for batch in whole] == [4, 4, 2]
    assert len(list(whole)) == len(whole) == 3  # type: ignore[arg-type]
    assert torch.equal(torch.cat([batch.inputs for batch in whole]), split.images)  # type: ignore[arg-type]
    for split_, size in ((split, None), (files, (10, 14))):
        shares = [list(eval_batches(split_, 2, rank=r, world_size=3, image_size=size)) for r in range(3)]
        seen = torch.cat([batch.index for share in shares for batch in share])  # type: ignore[misc]
        assert torch.equal(seen, split_.index)
        assert all((batch.view == 0).all() for share in shares for batch in share)  # type: ignore[union-attr]


def test_eval_of_files_cuts_the_centre(files: ImageSplit) -> None:
    batch = next(iter(eval_batches(files, 3, image_size=(70, 70), crop_ratio=1.0)))
    assert batch.inputs.shape == (3, 3, 70, 70)
    assert len(eval_batches(files, 4, image_size=(8, 8))) == 3  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="needs image_size"):
        eval_batches(files, 4)
    with pytest.raises(SettingError, match="batch_size"):
        eval_batches(files, 0, image_size=(8, 8))


SETS = (VIEWS, Views(), Views(flip=True))


def test_several_views_of_a_sample_stand_one_after_another() -> None:
    split = resident_split()
    assert isinstance(split.images, torch.Tensor)
    sized = [views.with_size(8, 8) for views in SETS]
    first = [0, sized[0].count, sized[0].count + 1]
    seen = []
    for batch in ResidentBatches(split, SETS, 7, seed=0).epoch(0):
        assert batch.index is not None
        assert batch.view is not None
        assert (batch.copies, len(batch)) == (3, 21)
        rows = batch.index[:7] - 100
        seen.append(rows)
        assert torch.equal(batch.index - 100, rows.repeat(3))
        assert torch.equal(batch.labels, split.labels[rows].repeat(3))
        for number, views in enumerate(sized):
            part = slice(7 * number, 7 * (number + 1))
            ids = batch.view[part] - first[number]
            assert bool(((ids >= 0) & (ids < views.count)).all())
            assert torch.equal(batch.inputs[part], views.apply(split.images[rows], ids))
    assert len(torch.cat(seen).unique()) == 21


def test_one_set_is_as_without_a_list() -> None:
    split = resident_split()
    assert same(
        list(ResidentBatches(split, VIEWS, 5, 1).epoch(0)), list(ResidentBatches(split, [VIEWS], 5, 1).epoch(0))
    )
    assert next(ResidentBatches(split, [VIEWS], 5, 1).epoch(0)).copies == 1


def test_the_first_of_several_views_is_the_same_as_alone() -> None:
    split = resident_split()
    alone = list(ResidentBatches(split, VIEWS, 5, 1).epoch(2))
    several = list(ResidentBatches(split, SETS, 5, 1).epoch(2))
    assert same(alone, [batch[slice(5)] for batch in several])
    assert several[0][slice(5)].copies == 1


def test_several_views_resume_and_are_shared_among_ranks() -> None:
    split = resident_split(22)
    full = list(ResidentBatches(split, SETS, 4, seed=5).epoch(2))
    assert same(full[3:], list(ResidentBatches(split, SETS, 4, seed=5).epoch(2, start=3)))
    parts = [list(ResidentBatches(split, SETS, 4, 5, rank=rank, world_size=2).epoch(2)) for rank in range(2)]
    for whole, *shares in zip(full, *parts, strict=True):
        views = [torch.cat([share.inputs.chunk(3)[number] for share in shares]) for number in range(3)]
        assert torch.equal(whole.inputs, torch.cat(views))


MIXED = [Views(crop=1, flip=True), Views(flip=True, mixup=0.2), Views(cutmix=1)]


def test_mixtures_are_told_of_and_keep_the_first_images_label() -> None:
    split = resident_split()
    batches = ResidentBatches(split, MIXED, 7, seed=3)
    for batch in batches.epoch(0):
        assert batch.mixed == (False, True, True)
        assert batch.labels.view(3, 7).unique(dim=0).shape[0] == 1
        rows = batch.index[:7] - 100
        for number, views in enumerate(batches.views):
            ids = batch.view[number * 7 : number * 7 + 7] - sum(each.count for each in batches.views[:number])
            assert torch.equal(
                batch.inputs[number * 7 : number * 7 + 7], views.apply(split.images[rows], ids, split.images)
            )
    assert next(ResidentBatches(split, [Views(flip=True)] * 2, 7, seed=3).epoch(0)).mixed == ()
    assert next(ResidentBatches(split, MIXED[1], 7, seed=3).epoch(0)).mixed == (True,)


def test_mixtures_resume_and_are_the_same_among_any_number_of_ranks() -> None:
    split = resident_split(24)
    whole = list(ResidentBatches(split, MIXED, 6, seed=3).epoch(2))
    later = list(ResidentBatches(split, MIXED, 6, seed=3).epoch(2, start=2))
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(whole[2:], later, strict=True))
    for world in (2, 3):
        ranks = [
            list(ResidentBatches(split, MIXED, 6, seed=3, rank=r, world_size=world).epoch(2)) for r in range(world)
        ]
        for batch, *shares in zip(whole, *ranks, strict=True):
            views = [torch.cat([share.inputs.chunk(3)[number] for share in shares]) for number in range(3)]
            assert torch.equal(batch.inputs, torch.cat(views))


def test_mixtures_that_samples_cycle_through_can_be_kept() -> None:
    split = resident_split(12)
    batches = ResidentBatches(split, MIXED, 4, seed=3, cycle=2)
    kept = {}
    for slot in range(len(batches.slots)):
        for batch in batches.at([(torch.arange(12), torch.full((12,), slot))]):
            for index, view, image in zip(batch.index, batch.view, batch.inputs, strict=True):
                kept[int(index), int(view)] = image
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            for index, view, image in zip(batch.index, batch.view, batch.inputs, strict=True):
                assert torch.equal(kept[int(index), int(view)], image)

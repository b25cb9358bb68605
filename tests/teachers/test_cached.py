"""A cached teacher says what the live one says, of the same sample in the same view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limbeck.errors import CacheError
from limbeck.teachers import CachedTeacher, FrozenTeacher, NoTeacher, cached

from .caches import World


def cached_teacher(world: World, folder: Path, **settings: object) -> CachedTeacher:
    return CachedTeacher(world.write(folder / "cache", **settings), world.batches.slots, world.split.index)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> World:
    return World(cycle=3)


@pytest.fixture(params=[False, True], ids=["mapped", "held"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways to read, the second of which an accelerator takes."""
    monkeypatch.setattr(cached, "fits", lambda device, size: request.param)
    return bool(request.param)


def check_equal(world: World, teacher: CachedTeacher, epochs: int) -> None:
    for epoch in range(epochs):
        for batch in world.batches.epoch(epoch):
            live, found = world.compute(batch), teacher.signals(torch.empty(0), batch)
            for name, value in found.tensors().items():
                assert value.dtype == torch.float32
                torch.testing.assert_close(value, live.tensors()[name], rtol=2**-10, atol=1e-5)
    teacher.check()


@pytest.mark.parametrize("views", ["crop=2,flip | crop=1,flip", "crop=1,randaugment=2", "none"])
def test_fixed_views_are_those_of_the_live_teacher(views: str, tmp_path: Path, held: bool) -> None:
    world = World(views, cycle=3)
    teacher = cached_teacher(world, tmp_path)
    assert teacher.held is held
    check_equal(world, teacher, 4)


def test_all_162_views_of_crop_and_flip_are_exact_to_half_precision(
    tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.teachers._layout._SHARD_ENTRIES", 2000)
    world = World("crop=4,flip", samples=40)
    teacher = cached_teacher(world, tmp_path)
    assert teacher.cache.layout.slots == 162
    check_equal(world, teacher, 10)
    positions = torch.arange(40).repeat_interleave(162)
    (batch,) = world.batches.at([(positions, torch.arange(162).repeat(40))])
    exact = world.compute(batch)
    found = teacher.signals(batch.inputs, batch)
    # Another batch size rounds its sums otherwise; beyond that, it is the nearest half-precision number.
    torch.testing.assert_close(found.logits, exact.logits, rtol=2**-11, atol=1e-6)
    torch.testing.assert_close(found.embedding, exact.embedding, rtol=2**-11, atol=1e-6)


def test_a_run_with_another_seed_uses_the_same_cache(world: World, tmp_path: Path) -> None:
    teacher = cached_teacher(world, tmp_path)
    other = World(cycle=3, batch_seed=7)
    check_equal(other, teacher, 3)


def test_samples_are_found_by_their_index_and_not_their_position(tmp_path: Path, held: bool) -> None:
    world = World(cycle=2)
    assert world.split.index.tolist() != list(range(40))
    check_equal(world, cached_teacher(world, tmp_path, keep=["logits", "features"]), 2)


def test_top_k_logits_come_back_as_log_probabilities(world: World, tmp_path: Path) -> None:
    teacher = cached_teacher(world, tmp_path, logits="topk(10)")
    (batch, *_) = world.batches.epoch(0)
    expected = world.compute(batch).logits
    assert expected is not None
    found = teacher.signals(batch.inputs, batch).logits
    torch.testing.assert_close(found, expected.log_softmax(-1), rtol=2e-3, atol=1e-3)


def test_only_who_looks_at_the_inputs_says_so(world: World, tmp_path: Path) -> None:
    assert FrozenTeacher.sees_inputs
    assert not NoTeacher.sees_inputs
    assert not cached_teacher(world, tmp_path).sees_inputs


def test_what_an_objective_needs_and_the_cache_has_not_is_named(world: World, tmp_path: Path) -> None:
    teacher = cached_teacher(world, tmp_path)
    teacher.require({"logits", "embedding", "labels", "index", "classifier"})
    with pytest.raises(
        CacheError, match=r"holds embedding and logits, and the objective needs the teacher's features and stem"
    ):
        teacher.require({"logits", "features", "stem"})
    with pytest.raises(CacheError, match="needs the teacher's stages"):
        teacher.require({"stages"})


@pytest.mark.parametrize("part", ["index", "view"])
def test_batches_that_do_not_tell_their_samples_are_refused(world: World, tmp_path: Path, part: str) -> None:
    (batch, *_) = world.batches.epoch(0)
    with pytest.raises(CacheError, match="a user's own loader cannot be used with a teacher cache"):
        cached_teacher(world, tmp_path).signals(batch.inputs, replace(batch, **{part: None}))  # type: ignore[arg-type]


@pytest.mark.parametrize("cycle", [None, 3])
@pytest.mark.parametrize(
    ("part", "wrong"), [("index", -1), ("index", 10**6), ("index", None), ("view", -1), ("view", 18)]
)
def test_a_sample_or_view_that_is_not_there_is_an_error(
    tmp_path: Path, held: bool, cycle: int | None, part: str, wrong: int | None
) -> None:
    world = World(cycle=cycle)
    teacher = cached_teacher(world, tmp_path)
    (batch, *_) = world.batches.epoch(0)
    if wrong is None:
        wrong = next(index for index in range(40) if index not in world.split.index)
    values = getattr(batch, part).clone()
    values[2] = wrong
    damaged = replace(batch, **{part: values})
    if held:
        # Nothing waits for the device in a step; it is told when someone asks.
        teacher.signals(batch.inputs, damaged)
        with pytest.raises(CacheError, match="does not hold a sample or a view of it"):
            teacher.check()
        teacher.check()
    else:
        name = f"sample {wrong}" if part == "index" else f"in view {wrong}"
        with pytest.raises(CacheError, match=f"does not hold .*{name}"):
            teacher.signals(batch.inputs, damaged)


def test_a_view_of_another_sample_is_not_taken(world: World, tmp_path: Path) -> None:
    teacher = cached_teacher(world, tmp_path)
    (batch, *_) = world.batches.epoch(0)
    assert batch.view is not None
    with pytest.raises(CacheError, match="does not hold sample"):
        teacher.signals(batch.inputs, replace(batch, view=batch.view.flip(0)))


def test_slots_and_samples_of_other_batches_are_refused(world: World, tmp_path: Path) -> None:
    cache = world.write(tmp_path / "cache")
    with pytest.raises(CacheError, match="holds 40 samples in 3 views, and the training data has 40 in 18"):
        CachedTeacher(cache, World().batches.slots, world.split.index)
    with pytest.raises(CacheError, match="a sample is in the training data twice"):
        CachedTeacher(cache, world.batches.slots, torch.zeros_like(world.split.index))

"""A cache is whole and of exactly this, or it is an error."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from limbeck.errors import CacheError
from limbeck.signals import Batch, Signals
from limbeck.teachers import _layout, find_cache, spot_check
from limbeck.teachers._identity import FORMAT, Identity, check_same
from limbeck.teachers._lock import writing_alone
from limbeck.teachers.cache import MANIFEST, read_manifest

from .caches import World

SHARD_0, SHARD_1 = "signals-00000.safetensors", "signals-00001.safetensors"
# Processes that have everything imported, and this one's teacher.
_fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "_SHARD_ENTRIES", 10 * 18)


@pytest.fixture(scope="module")
def written(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "cache"
    before, _layout._SHARD_ENTRIES = _layout._SHARD_ENTRIES, 10 * 18
    world.write(folder)
    _layout._SHARD_ENTRIES = before
    return folder


@pytest.fixture
def cache(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "cache"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_what_is_written_is_what_the_teacher_says_to_half_precision(world: World, written: Path) -> None:
    cache = find_cache(written, world.identity())
    assert cache is not None
    assert [path.name for path in sorted(written.glob("*.safetensors"))][-1] == "signals-00003.safetensors"
    entries = torch.randperm(40 * 18)
    (batch,) = world.batches.at([(entries // 18, entries % 18)])
    live, found = world.compute(batch), cache.layout.decode(cache.gather(entries))
    assert set(found.tensors()) == {"logits", "embedding"}
    for name, value in live.tensors().items():
        if name in found.tensors():
            torch.testing.assert_close(found.tensors()[name], value, rtol=2**-10, atol=1e-4)
    assert spot_check(cache, world.batches, world.compute, index=world.split.index, count=50) < 2e-3


def test_the_size_is_told_before_it_is_written(world: World, written: Path) -> None:
    plan = world.plan()
    assert plan.bytes == 40 * 18 * (10 + 16) * 2
    on_disk = sum(path.stat().st_size for path in written.glob("*.safetensors"))
    assert plan.bytes < on_disk < plan.bytes + 4 * 1000


def test_shards_are_mapped_and_not_read(world: World, written: Path) -> None:
    cache = find_cache(written, world.identity())
    assert cache is not None
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    assert maps.read_text().count(f"{written.resolve()}/signals-") >= 4


def test_features_and_single_precision_when_asked_for(world: World, tmp_path: Path) -> None:
    cache = world.write(tmp_path / "cache", keep=["logits", "features"], dtype="fp32")
    (batch,) = world.batches.at([(torch.arange(40), torch.arange(40) % 18)])
    found = cache.layout.decode(cache.gather(torch.arange(40) * 18 + torch.arange(40) % 18))
    live = world.compute(batch)
    assert found.embedding is None
    torch.testing.assert_close(found.logits, live.logits)
    torch.testing.assert_close(found.features["stages.0"], live.features["stages.0"])


@pytest.mark.parametrize("logits", ["topk(3)", "sampled(20)"])
def test_a_coded_cache_agrees_with_its_teacher_and_no_other(world: World, tmp_path: Path, logits: str) -> None:
    cache = world.write(tmp_path / "cache", logits=logits)
    index = world.split.index
    assert spot_check(cache, world.batches, world.compute, index=index, count=64) < 2e-3
    with pytest.raises(CacheError, match=r"entries of the teacher cache .* differ"):
        spot_check(cache, world.batches, World(seed=1).compute, index=index, count=64)


def test_a_check_tells_how_many_entries_differ(world: World, cache: Path) -> None:
    tensors = load_file(cache / SHARD_0)
    tensors["logits"][:, :9] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.teachers._shards._checksum", lambda tensors: "")
        found = find_cache(cache, world.identity(), verify=False)
    assert found is not None
    found._shards[0]["logits"][:] = tensors["logits"].flatten(0, 1)
    with pytest.raises(CacheError, match=r"\d+ of 64 entries .* by up to .* \(0\.00298 is allowed\)"):
        spot_check(found, world.batches, world.compute, index=world.split.index, count=64)


def test_signals_that_the_teacher_does_not_give_are_refused(world: World) -> None:
    with pytest.raises(CacheError, match=r"gives no stem to store; it gives logits, embedding, features\.stages\.0"):
        world.plan(keep=["logits", "stem"])


# Identity


def test_an_identity_is_of_the_contents(world: World) -> None:
    assert World().identity() == world.identity()
    assert World(batch_seed=5).identity() == world.identity()
    assert World(cycle=4, batch_seed=5).identity() == World(cycle=4).identity()


@pytest.mark.parametrize(
    ("changes", "settings", "named"),
    [
        ({"seed": 1}, {}, "The teacher: ConvNet [0-9a-f]{12}… there, ConvNet [0-9a-f]{12}… now"),
        ({"samples": 41}, {}, "The training data: 40 samples [0-9a-f]{12}… there, 41 samples"),
        (
            {"views": "crop=1"},
            {},
            "The augmentation: 'crop=1,flip at 8×8, all 18 views' there, 'crop=1 at 8×8, all 9 views' now",
        ),
        ({"cycle": 18}, {}, "The augmentation: .*all 18 views' there, .* 18 fixed views of each sample' now"),
        ({}, {"precision": "bf16"}, "The precision of the teacher's forward pass: fp32 there, bf16 now"),
        ({}, {"dtype": "fp32"}, "The stored dtype: fp16 there, fp32 now"),
        ({}, {"logits": "topk(k=5)"}, "How logits are stored: dense there, topk\\(5\\) now"),
        (
            {"seed": 1},
            {"dtype": "fp32"},
            "The teacher: .*; the stored dtype: .* Name another folder, or delete this one",
        ),
    ],
)
def test_a_cache_of_something_else_is_refused_with_what_differs(
    written: Path, changes: dict[str, Any], settings: dict[str, Any], named: str
) -> None:
    before = content(written)
    with pytest.raises(CacheError, match=named):
        find_cache(written, World(**changes).identity(**settings))
    with pytest.raises(CacheError, match=named):
        World(**changes).write(written, **settings)
    assert content(written) == before


def test_another_preprocessing_is_refused(world: World, written: Path) -> None:
    other = replace(world.identity(), preprocess="Preprocess(mean=(0.5,))")
    with pytest.raises(CacheError, match=r"The teacher's preprocessing: 'Preprocess\(mean=\(0\.3.* now"):
        find_cache(written, other)


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
def test_every_part_of_an_identity_counts(name: str) -> None:
    one = Identity("t", "d", "v", "x", "p", "fp32", "fp16", "dense")
    with pytest.raises(CacheError, match=r" there, .* now"):
        check_same(Path("c"), one, replace(one, **{name: 2 if name == "format" else "other"}))


# Damage


@pytest.mark.parametrize("cut", [0, 5, 300, 2000, -1])
def test_a_truncated_shard_is_refused_and_repaired(world: World, written: Path, cache: Path, cut: int) -> None:
    data = (cache / SHARD_1).read_bytes()
    (cache / SHARD_1).write_bytes(data[:cut])
    for verify in (True, False):
        with pytest.raises(CacheError, match=f"{SHARD_1} is cut off or damaged"):
            find_cache(cache, world.identity(), verify=verify)
    world.seen = 0
    world.write(cache)
    assert world.seen == 10 * 18 + 2
    assert content(cache) == content(written)


def test_a_missing_shard_is_refused(world: World, cache: Path) -> None:
    (cache / SHARD_1).unlink()
    with pytest.raises(CacheError, match=f"incomplete: .*{SHARD_1} is missing"):
        find_cache(cache, world.identity())


def test_a_nan_in_a_shard_is_refused(world: World, cache: Path) -> None:
    data = bytearray((cache / SHARD_0).read_bytes())
    data[-2:] = torch.tensor([float("nan")], dtype=torch.float16).view(torch.uint8).numpy().tobytes()
    (cache / SHARD_0).write_bytes(bytes(data))
    assert any(value.isnan().any() for value in load_file(cache / SHARD_0).values())
    with pytest.raises(CacheError, match=f"the bytes of .*{SHARD_0} are not those that were written"):
        find_cache(cache, world.identity())


def test_shards_in_each_others_place_are_refused(world: World, cache: Path) -> None:
    shutil.copy(cache / SHARD_0, cache / SHARD_1)
    with pytest.raises(CacheError, match=f"{SHARD_1} is of another cache, or of other samples"):
        find_cache(cache, world.identity(), verify=False)


def test_a_shard_without_its_marks_is_refused(world: World, cache: Path) -> None:
    save_file(load_file(cache / SHARD_0), cache / SHARD_0)
    with pytest.raises(CacheError, match="is of another cache"):
        find_cache(cache, world.identity(), verify=False)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"identity": {}}', '{"identity": {"format": 1}}', "[" * 100_000, "\0\1\2"]
)
def test_a_manifest_that_is_none_is_refused(world: World, cache: Path, text: str) -> None:
    (cache / MANIFEST).write_text(text)
    with pytest.raises(CacheError, match=r"manifest\.json is damaged or no manifest of a teacher cache"):
        find_cache(cache, world.identity())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 41),
        ("samples", "40"),
        ("slots", 0),
        ("dtype", "fp32"),
        ("dtype", ["fp16"]),
        ("shard_samples", -1),
        ("shards", []),
        ("signals", {"logits": [11]}),
        ("signals", 3),
        ("logits", "topk(4)"),
        ("complete", "yes"),
    ],
)
def test_a_manifest_that_was_altered_is_refused(world: World, cache: Path, name: str, value: object) -> None:
    manifest = json.loads((cache / MANIFEST).read_text())
    (cache / MANIFEST).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(CacheError):
        find_cache(cache, world.identity())


@pytest.mark.parametrize("version", [FORMAT + 1, 0, "one", None])
def test_another_version_of_the_format_is_refused(world: World, cache: Path, version: object) -> None:
    manifest = json.loads((cache / MANIFEST).read_text())
    manifest["identity"]["format"] = version
    # What a later version writes beside it is not looked at.
    (cache / MANIFEST).write_text(json.dumps({"identity": manifest["identity"]}))
    with pytest.raises(CacheError, match=rf"has version {version!r} of the format, and this limbeck reads version 1"):
        find_cache(cache, world.identity())


# Writing


def test_there_is_no_cache_before_it_is_complete(world: World, tmp_path: Path) -> None:
    assert find_cache(tmp_path / "none", world.identity()) is None
    with pytest.raises(ZeroDivisionError):
        world.write(tmp_path / "cache", Failing(world, after=300))
    assert find_cache(tmp_path / "cache", world.identity()) is None
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["lock", MANIFEST, SHARD_0]


class Failing:
    def __init__(self, world: World, after: int) -> None:
        self.world, self.after, self.seen = world, after, 0

    def __call__(self, batch: Batch) -> Signals:
        self.seen += len(batch)
        if self.seen > self.after:
            self.fail()
        return self.world.compute(batch)

    def fail(self) -> None:
        raise ZeroDivisionError


class Killed(Failing):
    """Tells the test that it is in the middle of a shard, and waits there for what may come."""

    def __init__(self, world: World, told: Any) -> None:
        super().__init__(world, after=300)
        self.told = told

    def fail(self) -> None:
        self.told.set()
        signal.pause()


def write_until_killed(world: World, folder: Path, told: Any) -> None:
    world.write(folder, Killed(world, told))


def test_one_process_writes_and_another_goes_on_where_it_was_killed(
    world: World, written: Path, tmp_path: Path
) -> None:
    folder, told = tmp_path / "cache", _fork.Event()
    child = _fork.Process(target=write_until_killed, args=(world, folder, told))
    child.start()
    assert told.wait(60)
    with pytest.raises(CacheError, match=rf"is being written by another process \(pid {child.pid}\)"):
        world.write(folder)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    (folder / ".signals-00001-0badcafe.safetensors").write_bytes(b"half")
    kept, world.seen = (folder / SHARD_0).stat().st_ino, 0
    world.write(folder)
    assert world.seen == 30 * 18 + 2
    assert (folder / SHARD_0).stat().st_ino == kept
    assert content(folder) == content(written)


def test_a_finished_cache_is_not_computed_again(world: World, cache: Path) -> None:
    world.seen = 0
    world.write(cache)
    assert world.seen == 2


def test_a_cache_with_other_signals_is_refused(world: World, cache: Path) -> None:
    with pytest.raises(CacheError, match=r"holds logits, embedding of 40 .* and logits of 40 in 18 are asked for"):
        world.write(cache, keep=["logits"])


def test_a_folder_with_something_else_is_left_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(CacheError, match="exists and is no teacher cache"):
        world.write(tmp_path)
    assert content(tmp_path) == {"thesis.tex": b"mine"}
    with pytest.raises(CacheError, match="cannot be made"):
        world.write(tmp_path / "thesis.tex")


def test_a_lock_is_released_at_the_end(tmp_path: Path) -> None:
    with writing_alone(tmp_path), pytest.raises(CacheError, match=f"pid {os.getpid()}"), writing_alone(tmp_path):
        pass
    with writing_alone(tmp_path):
        pass


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 30_000, 30_000))
    world.seen = 0
    with pytest.raises(CacheError, match=r"needs 37 kB and the disk of .* has 30 kB free"):
        world.write(tmp_path / "cache")
    assert world.seen == 2
    assert list(tmp_path.rglob("*.safetensors")) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_becomes_full_leaves_nothing_half_written(world: World, written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with files_of_at_most(5000), pytest.raises(CacheError, match=r"could not be written \(.*File too large"):
        world.write(folder)
    assert list(folder.rglob("*.safetensors")) + list(folder.rglob(".*")) == []
    assert find_cache(folder, world.identity()) is None
    world.write(folder)
    assert content(folder) == content(written)


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1e8, r"logits reach .*, and half precision ends at 65,504; .*--cache-dtype fp32"), (float("nan"), "became NaN")],
)
def test_numbers_that_cannot_be_stored_are_refused(world: World, tmp_path: Path, factor: float, said: str) -> None:
    def compute(batch: Batch) -> Signals:
        signals = world.compute(batch)
        assert signals.logits is not None
        return replace(signals, logits=signals.logits * factor)

    with pytest.raises(CacheError, match=said):
        world.write(tmp_path / "cache", compute)
    assert list(tmp_path.rglob("*.safetensors")) == []
    if factor == 1e8:
        world.write(tmp_path / "single", compute, dtype="fp32")


def test_signals_of_another_shape_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"logits should have the shape \(10,\) a sample; it gave \(1,\)"):
        world.write(tmp_path / "cache", lambda batch: Signals(logits=torch.zeros(len(batch), 1)))


def test_progress_is_told_in_entries(world: World, tmp_path: Path) -> None:
    from limbeck.teachers import write_cache

    told: list[tuple[int, int]] = []
    write_cache(
        tmp_path / "cache", world.plan(), world.batches, world.compute, on_progress=lambda *done: told.append(done)
    )
    assert told[-1] == (720, 720)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


# Several processes


def write_in_two(rank: int, world: World, folder: Path, failing: bool, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder.parent / 'meeting'}", rank=rank, world_size=2)
    world.seen = 0
    try:
        cache = world.write(folder, Failing(world, after=100) if failing and rank == 1 else None)
        found = find_cache(folder, world.identity())
        assert found is not None
        results.put((rank, world.seen, float(cache.gather(torch.arange(700))["logits"].sum())))
    except CacheError as error:
        results.put((rank, world.seen, str(error)))
    dist.destroy_process_group()


def in_two(world: World, folder: Path, failing: bool = False) -> list[tuple[int, int, Any]]:
    results = _fork.Queue()
    children = [_fork.Process(target=write_in_two, args=(rank, world, folder, failing, results)) for rank in range(2)]
    for child in children:
        child.start()
    found = sorted(results.get(timeout=90) for _ in children)
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    return found


def test_two_processes_share_the_work_and_write_the_same_files(world: World, written: Path, tmp_path: Path) -> None:
    found = in_two(world, tmp_path / "cache")
    assert [seen for _, seen, _ in found] == [20 * 18 + 2] * 2
    assert found[0][2] == found[1][2]
    assert content(tmp_path / "cache") == content(written)


def test_what_fails_in_one_process_is_the_same_error_in_all(world: World, written: Path, tmp_path: Path) -> None:
    found = in_two(world, tmp_path / "cache", failing=True)
    assert [text for _, _, text in found] == ["the teacher cache failed in process 1: ZeroDivisionError: "] * 2
    stored = read_manifest(tmp_path / "cache")
    assert stored is not None
    assert stored[1] is False
    assert (tmp_path / "cache" / SHARD_0).exists()
    world.write(tmp_path / "cache")
    assert content(tmp_path / "cache") == content(written)

"""A run's teacher caches: one of the training data in its views or as they are, and one of each evaluation split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from limbeck.config import TeacherSettings
from limbeck.data import FileBatches, ImageSplit, ResidentBatches
from limbeck.errors import CacheError, SettingError
from limbeck.feeds import Feeds, unchanged_batches
from limbeck.fingerprint import of_module
from limbeck.matching import Names
from limbeck.networks import Network
from limbeck.progress import Progress
from limbeck.signals import Batch, Signals
from limbeck.teachers import CachedTeacher, Identity, Teacher, find_cache, identify, plan_cache, spot_check, write_cache
from limbeck.teachers.cache import CachePlan, SlotBatches, TeacherCache

Say = Callable[[str], None]

_MAPS = ("features", "preactivations", "stem", "embedding_map")
# Settings of what a cache keeps, and their usual values.
_OF_LOGITS_AND_MAPS = (("cache_logits", "dense"), ("cache_features", False))


def check_asked_for(settings: TeacherSettings) -> None:
    """Raise SettingError for a setting that says what a cache keeps, where no cache is asked for."""
    if settings.teacher_cache is not None:
        return
    for name, usual in _OF_LOGITS_AND_MAPS:
        if getattr(settings, name) != usual:
            raise SettingError(
                f"{name} says what a teacher cache keeps, and none is asked for: name its folder with --teacher-cache, or "
                f"leave {name} out."
            )


def check_cachable(settings: TeacherSettings, feeds: Feeds, needs: frozenset[str]) -> None:
    """Check that a cache can serve these images and objectives, where one is asked for.

    Raises:
        SettingError: the data are a user's own loader, which tells neither samples nor views.
        CacheError: feature maps are needed, and the settings do not ask for keeping them.
    """
    if settings.teacher_cache is not None and feeds.data is None:
        raise SettingError(
            "teacher_cache: a loader of your own tells neither its samples nor their views; give the data by name, or as "
            "ImageData."
        )
    check_maps(settings, needs)


def check_maps(settings: TeacherSettings, needs: frozenset[str]) -> None:
    """Raise CacheError where feature maps are needed, and a cache is asked for without them."""
    maps = _maps(needs)
    if settings.teacher_cache is not None and maps and not settings.cache_features:
        raise CacheError(
            f"the objectives need the teacher's {' and '.join(maps)}, which a teacher cache keeps only with "
            "cache_features (they are large); or train without teacher_cache."
        )


def check_search_cache(settings: TeacherSettings) -> None:
    """Raise SettingError for a setting of a cache that keeps nothing of search, where a cache is asked for."""
    if settings.teacher_cache is None:
        return
    for name, usual in _OF_LOGITS_AND_MAPS:
        if getattr(settings, name) != usual:
            raise SettingError(f"{name}: of search a cache keeps embeddings, and neither logits nor feature maps.")


def _maps(needs: frozenset[str]) -> list[str]:
    return [name for name in _MAPS if name in needs or (name == "features" and "stages" in needs)]


class SplitCaches(Protocol):
    """The caches of one teacher and one data set, of whatever kind."""

    def of_training(self, needs: frozenset[str], names: Sequence[Names]) -> Teacher:
        """The teacher of the training batches, from the cache, which is written first where there is none.

        Args:
            needs: of all objectives. names: what each student's objectives call the teacher's maps.

        Raises:
            CacheError: the cache is of something else, damaged, or does not hold what is needed.
        """
        ...

    def of_evaluation(self, name: str) -> CachedTeacher | None:
        """The teacher of a split without augmentation; its logits alone are kept. None where nothing is kept of it."""
        ...


class Caches:
    """The caches of images in one folder, of one teacher and one data set.

    compute: the teacher's signals for a batch, live.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        feeds: Feeds,
        network: Network,
        compute: Callable[[Batch], Signals],
        device: torch.device,
        say: Say,
    ) -> None:
        assert settings.teacher_cache is not None
        assert feeds.data is not None
        assert isinstance(feeds.train, ResidentBatches | FileBatches)
        self.batches: SlotBatches = feeds.train
        self.folder: Path = settings.teacher_cache
        self.settings, self.data, self.network, self.compute = settings, feeds.data, network, compute
        self.device, self.say = device, say

    def of_training(self, needs: frozenset[str], names: Sequence[Names]) -> Teacher:
        """See :meth:`SplitCaches.of_training`."""
        batches = self.batches
        teacher = self._teacher("train", self.data.train, batches, self._keep(needs), self.settings.cache_logits)
        require(teacher, needs, names)
        self._check(teacher, batches, self.data.train)
        return teacher

    def of_samples(self, needs: frozenset[str], example: Signals) -> CachedTeacher:
        """The teacher's answers to the training images as they are: it is asked about those that are not there yet.

        No other image is asked about, to check or to find out shapes, which ``example`` shows: its signals for any images.

        Raises:
            CacheError: as :meth:`of_training`.
        """
        batches = unchanged_batches(self.data, self.data.train, self.settings, self.device)
        return self._teacher("train", self.data.train, batches, self._keep(needs), "dense", example=example)

    def _keep(self, needs: frozenset[str]) -> list[str]:
        return ["logits", *(["embedding"] if self.network.tapped.classifier else []), *_maps(needs)]

    def of_evaluation(self, name: str) -> CachedTeacher | None:
        """See :meth:`SplitCaches.of_evaluation`; None where there is no such split."""
        split = {"validation": self.data.val, "test": self.data.test}.get(name)
        if split is None:
            return None
        batches = unchanged_batches(self.data, split, self.settings, self.device)
        teacher = self._teacher(name, split, batches, ["logits"], "dense")
        self._check(teacher, batches, split)
        return teacher

    def _teacher(
        self,
        name: str,
        split: ImageSplit,
        batches: SlotBatches,
        keep: Sequence[str],
        logits: str,
        *,
        example: Signals | None = None,
    ) -> CachedTeacher:
        settings = self.settings
        identity = identify(
            self.network.tapped.network,
            split,
            batches.slots,
            self.network.preprocess,
            precision=settings.precision,
            dtype=settings.cache_dtype,
            logits=logits,
            beside=beside_of(self.network),
        )

        def plan() -> CachePlan:
            # Where no answer may be asked for twice, at most those of a batch get lost.
            most = None if example is None else settings.batch_size
            shown = self._example(split, batches) if example is None else example
            return plan_cache(identity, len(split), len(batches.slots), shown, keep=keep, file_samples=most)

        # Batches as large as in training: larger ones would be the peak of the memory.
        size, what = settings.batch_size, f"{name} samples"
        cache = find_or_write(self.folder / name, identity, plan, batches, self.compute, what, size, self.say)
        return CachedTeacher(cache, batches.slots, split.index, self.device)

    def _example(self, split: ImageSplit, batches: SlotBatches) -> Signals:
        few = torch.arange(min(2, len(split)))
        (batch,) = batches.at([(few, torch.zeros_like(few))])
        return self.compute(batch)

    def _check(self, teacher: CachedTeacher, batches: SlotBatches, split: ImageSplit) -> None:
        if self.settings.cache_check:
            spot_check(teacher.cache, batches, self.compute, index=split.index, count=self.settings.cache_check)


def find_or_write(
    folder: Path,
    identity: Identity,
    plan: Callable[[], CachePlan],
    batches: SlotBatches,
    compute: Callable[[Batch], Signals],
    what: str,
    batch_size: int,
    say: Say,
) -> TeacherCache:
    """The cache of this identity in a folder, which is written first where there is none.

    plan: of the cache to be written. batches, compute, batch_size: see ``write_cache``. what: the samples in words.

    Raises:
        CacheError: the folder holds a cache of something else, a damaged one, or it cannot be written.
    """
    cache = find_cache(folder, identity)
    if cache is not None:
        say(f"cache       {folder}: {_size(cache.plan.bytes)}, read instead of asking the teacher")
        return cache
    made = plan()
    layout = made.layout
    say(
        f"cache       {folder}: writing {', '.join(layout.shapes)} of {layout.samples:,} {what} in "
        f"{layout.slots:,} view{'s' * (layout.slots != 1)} each, {_size(made.bytes)}"
    )
    return write_cache(folder, made, batches, compute, batch_size=batch_size, on_progress=Progress(say))


def require(teacher: CachedTeacher, needs: frozenset[str], names: Sequence[Names]) -> None:
    """Raise CacheError unless stored answers hold what objectives need; ``names`` are what they call the teacher's maps."""
    teacher.require(needs)
    held = teacher.cache.layout.shapes
    paths = {f"{group}.{path}" for each in names for group, paths in each.items() for path in paths.values()}
    missing = sorted(path for path in paths if path not in held)
    if missing:
        raise CacheError(
            f"the teacher cache {teacher.cache.folder} does not hold {', '.join(missing)}, which the objectives need: it "
            "was written for others. Name another folder."
        )


def beside_of(network: Network) -> str:
    """The teachers beside the principal one and how all of them become one, in words and digits; empty for one teacher."""
    if network.rule is None:
        return ""
    others = [f"{of_module(each.tapped.network)} of {each.preprocess!r}" for each in network.beside]
    return f"{network.rule.name}({network.rule}) with {', '.join(others)}"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"

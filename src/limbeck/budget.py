"""A budget of teacher calls: what it goes with, the count that no call passes by, and the teacher that keeps to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.caching import Caches, require
from limbeck.combination import Combination
from limbeck.config import TeacherSettings
from limbeck.data.seeds import stream
from limbeck.distributed import rank, world_size
from limbeck.errors import SettingError, TeacherError
from limbeck.evaluate import Score, score
from limbeck.job import Plan
from limbeck.matching import Names
from limbeck.signals import Batch, Signals
from limbeck.surroundings import Surroundings
from limbeck.tasks.base import Seen
from limbeck.teachers import AskedOnceTeacher, CachedTeacher, NoTeacher, Teacher
from limbeck.teachers.cache import read_manifest
from limbeck.teaching import Teaching

ANSWERS = "teacher-answers"
"""The folder, in a run's own, of what the teacher said within its budget."""


class Calls:
    """The calls that a teacher still has; a call is one image that it is asked about.

    Args:
        limit: the most that may ever be made.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.made = limit, 0

    def spend(self, calls: int) -> None:
        """Count calls that are about to be made. Raises TeacherError, before they are, where they are too many."""
        if self.made + calls > self.limit:
            raise TeacherError(
                f"the teacher may be asked {self.limit:,} times (teacher_budget), was asked {self.made:,} times, and {calls:,} "
                "more calls were about to be made; none of them was."
            )
        self.made += calls


def check_budget(settings: TeacherSettings, *, loader: bool) -> None:
    """Check the settings that a budget must go with, where there is one. ``loader``: whether the data are a user's own loader.

    Raises:
        SettingError: one that it does not go with.
    """
    budget = settings.teacher_budget
    if budget is None:
        return
    if loader:
        raise SettingError(
            "teacher_budget: a loader of your own does not tell which sample an image is of, so the teacher's answer to it "
            "cannot be found again; give the data by name, or as ImageData."
        )
    if settings.teacher_cache is not None:
        raise SettingError(
            "teacher_budget and teacher_cache exclude each other: a cache is written by asking about every image in every "
            "view, and a budget keeps its own answers in the run's folder. Leave one of them out."
        )
    if settings.train_limit is not None:
        raise SettingError(
            f"teacher_budget is {budget} and train_limit {settings.train_limit}: the budget is the number of training images "
            "already. Leave train_limit out."
        )
    if budget < settings.batch_size:
        raise SettingError(
            f"teacher_budget is {budget}, less than a batch of {settings.batch_size}; give at least {settings.batch_size}, or "
            "a smaller batch_size."
        )


def check_views(batch: Batch) -> None:
    """Raise SettingError where the images of training batches are mixtures, to which no sample's answer is the answer."""
    if any(batch.mixed):
        raise SettingError(
            f"teacher_budget: view {batch.mixed.index(True) + 1} mixes each image with another (mixup or cutmix), and the "
            "teacher was asked about single images; each mixture would be a call more. Leave the mixing out."
        )


def without_samples(batch: Batch) -> Batch:
    """The batch with noise for images: it shows the shapes of what a network says and asks nothing about the data."""
    noise = torch.randint(0, 256, batch.inputs.shape, generator=stream(0), dtype=batch.inputs.dtype)
    return replace(batch, inputs=noise.to(batch.inputs.device))


class BudgetedTeaching(Teaching):
    """A teacher that is asked once about each training image, unaugmented, and about nothing else.

    It is asked as late as can be, when everything else is checked. Its answers are kept in the run's folder, a file for each
    batch, so that a resumed run asks for none of them again. Shapes are found out with noise, which asks nothing about the
    data.
    """

    on_test = False

    def __init__(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> None:
        limit = around.distill.teacher_budget
        assert limit is not None
        self._count = Calls(limit)
        self._folder: Path | None = None
        self._begun = False
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        super().__init__(teacher, needs, around)

    def keep_in(self, folder: Path | None, *, begun: bool) -> None:
        """Name the folder for the answers, None for one that is deleted at the end.

        Raises:
            SettingError: several processes have no folder in common.
            TeacherError: training has begun, and the answers are gone.
        """
        if folder is None and world_size() > 1:
            raise SettingError(
                "teacher_budget: several processes share the teacher's answers in the run's folder, so give the run a name."
            )
        if folder is not None and begun:
            found = read_manifest(folder / "train")
            if found is None or not found[1]:
                raise TeacherError(
                    f"the run has spent its teacher_budget, and the answers that it paid for are not in {folder}: to go on, "
                    "it would have to spend a second one. Bring the folder back, or begin anew with --overwrite."
                )
        self._folder = folder

    @property
    def calls(self) -> int:
        """Images that it was asked about, from the run's beginning on."""
        return self._stored.cache.layout.samples if "_stored" in self.__dict__ else 0

    def ready(self, plans: Sequence[Plan], names: Sequence[Names]) -> Teacher:
        if not any(plan.needs_teacher for plan in plans):
            return NoTeacher()
        require(self._stored, frozenset[str]().union(*(plan.needs for plan in plans)), names)
        return AskedOnceTeacher(self._stored)

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    @cached_property
    def _stored(self) -> CachedTeacher:
        """Its answers; the first to look at them has it asked."""
        around, feeds = self._around, self._around.feeds
        assert feeds.data is not None
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="limbeck-")
            self._folder = Path(self._temporary.name)
        around.say(
            f"budget      {len(feeds.data.train):,} of at most {self._count.limit:,} calls: one for each training image, "
            "unaugmented; none for validation and test"
        )
        settings = around.distill.model_copy(update={"teacher_cache": self._folder, "cache_dtype": "fp32"})
        caches = Caches(settings, feeds, self.network, partial(self._live, training=True), around.device, around.say)
        return caches.of_samples(self._needs, self.of_probe(Seen(around.probe)))

    def _live(self, batch: Batch, *, training: bool) -> Signals:
        self._count.spend(len(batch))
        return super()._live(batch, training=training)

    @property
    def _checked_on(self) -> str:
        return "training"

    def _scored(self, split: str) -> Score:
        return score(self._logits_of, self._asked())

    def _logits_of(self, batch: Batch) -> Tensor:
        logits = self._stored.signals(batch.inputs, batch).logits
        assert logits is not None
        return logits

    def _asked(self) -> Iterator[Batch]:
        """The samples, of several processes each its part, without their images."""
        data, device = self._around.feeds.data, self._around.device
        assert data is not None
        for rows in torch.arange(len(data.train))[rank() :: world_size()].split(self._around.settings.batch_size):
            labels, index = data.train.labels[rows], data.train.index[rows]
            yield Batch(labels, labels, index, torch.zeros_like(index)).to(device)

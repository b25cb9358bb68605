"""The teacher of a session: opened and checked, scored, and asked, live or from a cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from limbeck.caching import Caches, SplitCaches, check_cachable
from limbeck.combination import Combination, open_teacher
from limbeck.config import TeacherSettings
from limbeck.errors import NonFiniteError, SettingError, TapError, TeacherError
from limbeck.evaluate import Score, score
from limbeck.job import Plan
from limbeck.matching import Names
from limbeck.networks import Network
from limbeck.several import check_rule, prepare_rule
from limbeck.signals import Batch, Signals
from limbeck.surroundings import Surroundings
from limbeck.tasks.base import Seen, Task
from limbeck.teachers import (
    CachedTeacher,
    CombinedTeacher,
    FrozenTeacher,
    MixedTargets,
    NoTeacher,
    Teacher,
    check_above_chance,
)
from limbeck.teachers.inference import for_inference

logger = logging.getLogger("limbeck")

Compute = Callable[[Batch], Signals]

EMBEDDED = frozenset({"embedding", "classifier", "embedding_map"})
"""What a network gives only where its classifier is tapped."""


class Teaching:
    """The teacher that all students of a session have.

    network: with the networks beside it, where it is several. classes: how many it tells apart. on_test: whether it answers to
    the validation and test splits too. writes_first: whether the texts that it writes are written before the training.

    Args:
        needs: what the students' objectives need of it.

    Raises:
        LimbeckError: what is wrong with the teacher, or with its cache's settings.
    """

    on_test = True
    writes_first = False

    def __init__(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> None:
        self._around, self._needs = around, needs
        if "attack" in needs:
            _check_attackable(around.distill)
        set_seed(around.settings.seed)  # for a teacher without weights
        self._check_cache()
        self.network = open_teacher(
            teacher, lambda model, principal: self._open_one(model, needs if principal else frozenset())
        )
        around.say(f"teacher     {self.network.name}: {self.network.parameters:,} parameters")
        self.classes: int | None = None
        self._probed: tuple[Names, Signals] | None = None
        self._score: Score | None = None
        check_rule(self.network, needs, around)

    def _check_cache(self) -> None:
        check_cachable(self._around.distill, self._around.feeds, self._needs)

    def _open_one(self, model: str | nn.Module, needs: frozenset[str]) -> Network:
        around = self._around

        def opened(embedding: bool) -> Network:
            return around.feeds.modality.open(
                model,
                who="teacher",
                probe=around.probe,
                device=around.device,
                classifier=around.distill.teacher_classifier,
                embedding=embedding,
                image_size=around.distill.teacher_size,
            )

        if needs & EMBEDDED:
            return opened(True)
        # A cache keeps the embedding for later runs too, where the teacher has one.
        if around.distill.teacher_cache is not None:
            with suppress(TapError):
                return opened(True)
        return opened(False)

    @property
    def calls(self) -> int | None:
        """Images that it was asked about, where they are counted."""
        return None

    # -- its answers ---------------------------------------------------------------------------------------------------

    def of_probe(self, seen: Seen) -> Signals:
        """Its signals for the probe; the same answer serves every student that taps nothing new."""
        taps: Names = {group: dict(paths) for group, paths in self.network.tapped.paths.items()}
        if self._probed is None or self._probed[0] != taps:
            told = FrozenTeacher(self.network.tapped).signals(seen.by(self._around.task_of(self.network)), seen.batch)
            self._probed = taps, told
            self.classes = None if told.logits is None else told.logits.shape[-1]
        return self._probed[1]

    def forget_probe(self) -> None:
        """Let go of what it said of the probe, whose feature maps are large."""
        self._probed = None

    def logits(self, split: str) -> Callable[[Batch], Tensor]:
        """From a batch of a split ("validation", "test" or "training") to the teacher's logits (B, C)."""
        known = self._known_logits(split)

        def predict(batch: Batch) -> Tensor:
            signals = self._live(batch, training=False) if known is None else known.signals(batch.inputs, batch)
            assert signals.logits is not None
            return signals.logits.to(self._around.device)

        return predict

    def score(self) -> Score | None:
        """Its score on the validation split, or on some training samples without one; checked, and once only.

        None for a teacher that answers to neither.

        Raises:
            TeacherError: it is near chance, or its logits are not finite.
        """
        if self._score is not None:
            return self._score
        split = self._checked_on
        try:
            found = self._scored(split)
        except NonFiniteError as error:
            raise TeacherError(f"the teacher cannot teach: {error}") from None
        what = f"{split} {self._around.feeds.modality.predictions}"
        self._around.say(f"            the teacher's accuracy is {found.accuracy:.2%} on {found.count:,} {what}")
        if not self._around.distill.allow_weak_teacher:
            assert self.classes is not None
            check_above_chance(found, self.classes, what)
        self._score = found
        return found

    @property
    def _checked_on(self) -> str:
        return "validation" if self._around.feeds.validation is not None else "training"

    def _scored(self, split: str) -> Score:
        return score(self.logits(split), self._around.feeds.check())

    def ready(self, plans: Sequence[Plan], names: Sequence[Names]) -> Teacher:
        """Where its answers come from in training, once it is known what all students need of it.

        ``names`` are what the students' objectives call the teacher's maps.

        Raises:
            CacheError: the teacher cache is of something else, damaged, or does not hold what is needed.
        """
        if not any(plan.needs_teacher for plan in plans):
            return NoTeacher()
        if self._around.distill.teacher_cache is None:
            return self._live_teacher()
        needs = frozenset[str]().union(*(plan.needs for plan in plans))
        return self._caches(training=True).of_training(needs, names)

    def keep_in(self, folder: Path | None, *, begun: bool) -> None:
        """Name the folder for answers that a run pays for; ``begun``: whether its training has begun. Here none are."""

    def lend_documents(self, student: Network) -> None:
        """Have a student search the teacher's documents, and encode queries alone.

        Raises:
            SettingError: the teacher has none that this student could search.
        """
        raise SettingError(f"documents=teacher is for search, and {self._around.feeds.name} is none.")

    def close(self) -> None:
        """Let go of what was kept for the session alone."""

    def channels_last(self) -> None:
        """Put its weights in the memory order that the surroundings have now."""
        for each in self.network.all:
            each.tapped.to(memory_format=torch.channels_last)
        self.forget_probe()

    # -- how they are made ---------------------------------------------------------------------------------------------

    def _known_logits(self, split: str) -> CachedTeacher | None:
        if self._around.distill.teacher_cache is None:
            return None
        return self._caches(training=False).of_evaluation(split)

    def _live(self, batch: Batch, *, training: bool) -> Signals:
        batch = batch.to(self._around.device)
        with self._around.accelerator.autocast():
            teacher = self._of_modules([each.tapped for each in self.network.all], training=training)
            return teacher.signals(self._around.task_of(self.network).inputs(batch), batch)

    def _live_teacher(self) -> Teacher:
        """The teacher as it is asked in training, where nothing is read from a cache."""
        prepare_rule(self.network, self._around)
        modules = [self._for_inference(each) for each in self.network.all]
        return self._of_modules(modules, training=True)

    def _of_modules(self, modules: Sequence[nn.Module], *, training: bool) -> Teacher:
        """The teacher that these modules make, which stand for its networks."""
        first, *others = (FrozenTeacher(module) for module in modules)
        teacher: Teacher = first
        if self.network.rule is not None:
            asks = [
                self._ask(other, self._around.task_of(each))
                for other, each in zip(others, self.network.beside, strict=True)
            ]
            teacher = CombinedTeacher(first, asks, self.network.rule, training=training)
        return MixedTargets(teacher) if self._around.distill.mixed_targets else teacher

    def _ask(self, teacher: Teacher, task: Task) -> Callable[[Any, Batch], Signals]:
        same = task == self._around.task_of(self.network)
        return lambda inputs, batch: teacher.signals(inputs if same else task.inputs(batch), batch)

    def _caches(self, *, training: bool) -> SplitCaches:
        return self._caches_of(partial(self._live, training=training))

    def _caches_of(self, compute: Compute) -> SplitCaches:
        around = self._around
        return Caches(around.distill, around.feeds, self.network, compute, around.device, around.say)

    def _for_inference(self, network: Network) -> nn.Module:
        """A network as it is asked in training: what it must record is known by now."""
        inputs = self._around.task_of(network).inputs(self._around.probe)
        with self._around.accelerator.autocast():
            return for_inference(network.tapped, inputs, compile=self._around.settings.compile, say=logger.info)


def _check_attackable(settings: TeacherSettings) -> None:
    for setting in ("teacher_cache", "teacher_budget"):
        if getattr(settings, setting) is not None:
            raise SettingError(
                f"{setting}: the objective attacks the teacher anew in every step, and no answer that is kept can say what it "
                f"tells of images that do not exist yet; train without {setting}, or with another objective."
            )

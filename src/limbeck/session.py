"""What the students of one teacher share, and each student with what is its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from limbeck import losses
from limbeck.caching import Caches, check_cachable
from limbeck.combination import Combination, check_same_classes, open_teacher
from limbeck.config import RunSettings
from limbeck.data import FileBatches, ImageData, ResidentBatches
from limbeck.data.seeds import mix
from limbeck.engine.fastest import Layout, agreed, fastest_layout, forward_pass, together, training_step
from limbeck.engine.learner import Learner
from limbeck.engine.memory import Footprint, footprint, give_back_memory
from limbeck.engine.probe import build_objectives, check_classes, probe_signals
from limbeck.engine.runtime import make_accelerator
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import NonFiniteError, SettingError, TapError, TeacherError
from limbeck.evaluate import Score, score
from limbeck.feeds import Feeds, image_feeds, loader_feeds, read_data, unchanged_batches
from limbeck.job import Job, Loaders, Plan, plan_of
from limbeck.matching import Names, connect, constants
from limbeck.networks import Network, checkpoint_gradients, open_network, share_preprocess
from limbeck.random_state import RandomState
from limbeck.runs import RunFolder
from limbeck.signals import Batch, Signals
from limbeck.tasks.vision import Seen, VisionTask
from limbeck.teachers import CachedTeacher, CombinedTeacher, FrozenTeacher, NoTeacher, Teacher, check_above_chance
from limbeck.teachers.inference import for_inference

logger = logging.getLogger("limbeck")

Say = Callable[[str], None]

_EMBEDDED = {"embedding", "classifier", "embedding_map"}
_FEW_STEPS, _A_MINUTE = 200, 60.0  # below either, finding the fastest layout is not worth the time
_HEADS = 1  # the stream of a seed from which heads are made, so that they do not depend on how the networks were


@dataclass(frozen=True)
class Member:
    """One student in a session: its plan, its network, its training and its run folder.

    classes: how many its network tells apart. footprint: the memory it takes.
    """

    plan: Plan
    network: Network
    learner: Learner
    runs: RunFolder | None
    classes: int
    footprint: Footprint

    @property
    def job(self) -> Job:
        """What was asked for."""
        return self.plan.job


class Session:
    """Data, teacher and device, which several students share.

    teacher_classes: how many the teacher tells apart, known once a student is admitted.

    Args:
        plans: of all students that will be admitted: what they need of the teacher is tapped there.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data or the teacher.
    """

    def __init__(self, plans: Sequence[Plan], accelerator: Accelerator, say: Say) -> None:
        job = next((plan.job for plan in plans if plan.job.teacher is not None), plans[0].job)
        self.accelerator, self.say, self.distill = accelerator, say, job.distill
        self.settings: RunSettings = job.settings
        self.device: torch.device = accelerator.device
        self.feeds = self._feeds(job)
        self.epochs = self.settings.epochs or self._usual_epochs()
        self.probe = next(iter(self.feeds.train.epoch(0))).to(self.device)
        self._networks: list[Network] = []
        self.network: Network | None = None
        self.channels_last = False
        self.teacher_classes: int | None = None
        if job.teacher is not None:
            set_seed(self.settings.seed)  # for a teacher without weights
            needs = frozenset[str]().union(*(plan.needs for plan in plans))
            check_cachable(self.distill, self.feeds, needs)
            self.network = self._open_teacher(job.teacher, needs)
            self._check_teachers(self.network)
        self.teacher: Teacher = NoTeacher()
        self._told: tuple[Names, Signals] | None = None
        self._teacher_score: Score | None = None
        self._scored = False

    def close(self) -> None:
        """Take the taps off the networks, which are then as they were given."""
        for network in self._networks:
            network.tapped.close()

    # -- what is shared ------------------------------------------------------------------------------------------------

    def order(self, settings: RunSettings) -> None:
        """Give the training data the order and views of these settings from now on."""
        if settings.data_seed != self.settings.data_seed:
            data = self._loaders or self.feeds.data
            assert data is not None
            self.feeds, self.settings = _feeds_of(data, settings, self.device), settings

    def _feeds(self, job: Job) -> Feeds:
        data = job.data
        self._loaders = data if isinstance(data, Loaders) else None
        if data is None:
            # The first process downloads what is missing; the others read it from the disk then.
            with self.accelerator.main_process_first():
                data = read_data(self.settings)
        feeds = _feeds_of(data, self.settings, self.device)
        if feeds.data is None:
            return feeds
        splits = {"train": feeds.data.train, "validation": feeds.data.val, "test": feeds.data.test}
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
        facts = "; ".join([f"{len(feeds.data.classes)} classes", *feeds.data.damage, f"views {feeds.views}"])
        self.say(f"data        {feeds.name}: {sizes} images, {facts}")
        return feeds

    def _usual_epochs(self) -> int:
        if self.feeds.data is None:
            raise SettingError("epochs is not given; a loader of your own has no usual number.")
        return self.feeds.data.recipe.epochs

    def _open_teacher(self, teacher: str | nn.Module | Combination, needs: frozenset[str]) -> Network:
        network = open_teacher(
            teacher, lambda model, principal: self._open_one(model, needs if principal else frozenset())
        )
        self._networks.extend(network.all)
        self.say(f"teacher     {network.name}: {network.parameters:,} parameters")
        return network

    def _open_one(self, model: str | nn.Module, needs: frozenset[str]) -> Network:
        def opened(embedding: bool) -> Network:
            return open_network(
                model,
                who="teacher",
                data=self.feeds.data,
                probe=self.probe,
                device=self.device,
                classifier=self.distill.teacher_classifier,
                embedding=embedding,
                image_size=self.distill.teacher_size,
            )

        return self._with_embedding_if_possible(opened) if not needs & _EMBEDDED else opened(True)

    def _check_teachers(self, network: Network) -> None:
        """Several teachers must tell the same classes apart, and a rule that changes over time cannot be cached."""
        if network.rule is None:
            return
        if not network.rule.cachable and self.distill.teacher_cache is not None:
            raise SettingError(
                f"teacher_cache: the answers of '{network.rule.name}' change from epoch to epoch, so they cannot be kept; "
                "train without a cache."
            )
        if network.rule.needs_losses and self.feeds.data is None:
            raise SettingError(
                f"teacher: '{network.rule.name}' measures every training sample, which a loader of your own does not tell: "
                "give the data by name or as ImageData."
            )
        counts = {}
        for number, each in enumerate(network.all, 1):
            logits = FrozenTeacher(each.tapped).signals(self._task_of(each).inputs(self.probe), self.probe).logits
            counts[f"teacher {number}"] = 0 if logits is None else logits.shape[-1]
        check_same_classes(counts)

    def _with_embedding_if_possible(self, opened: Callable[[bool], Network]) -> Network:
        # A cache keeps the embedding for later runs too, where the teacher has one.
        if self.distill.teacher_cache is not None:
            with suppress(TapError):
                return opened(True)
        return opened(False)

    @property
    def teacher_task(self) -> VisionTask:
        """How the teacher sees a batch; as the students do where there is none."""
        return self._task_of(self.network or self._networks[0])

    def _task_of(self, network: Network) -> VisionTask:
        return VisionTask(network.preprocess, self.channels_last)

    def teacher_logits(self, split: str) -> Callable[[Batch], Tensor]:
        """From a batch of a split ("validation", "test" or "training") to the teacher's logits (B, C)."""
        known = self._known_logits(split)

        def predict(batch: Batch) -> Tensor:
            signals = self._live(batch, training=False) if known is None else known.signals(batch.inputs, batch)
            assert signals.logits is not None
            return signals.logits.to(self.device)

        return predict

    def _known_logits(self, split: str) -> CachedTeacher | None:
        data = self.feeds.data
        images = None if data is None else {"validation": data.val, "test": data.test}.get(split)
        if self.distill.teacher_cache is None or images is None:
            return None
        return self._caches(training=False).of_evaluation(split, images)

    def _live(self, batch: Batch, *, training: bool) -> Signals:
        assert self.network is not None
        batch = batch.to(self.device)
        with self.accelerator.autocast():
            teacher = self._teacher_of([each.tapped for each in self.network.all], training=training)
            return teacher.signals(self.teacher_task.inputs(batch), batch)

    def _teacher_of(self, modules: Sequence[nn.Module], *, training: bool) -> Teacher:
        """The teacher that these modules make, which stand for its networks."""
        network = self.network
        assert network is not None
        first, *others = (FrozenTeacher(module) for module in modules)
        if network.rule is None:
            return first
        asks = [self._ask(other, self._task_of(each)) for other, each in zip(others, network.beside, strict=True)]
        return CombinedTeacher(first, asks, network.rule, training=training)

    def _ask(self, teacher: Teacher, task: VisionTask) -> Callable[[Tensor, Batch], Signals]:
        same = task == self.teacher_task
        return lambda inputs, batch: teacher.signals(inputs if same else task.inputs(batch), batch)

    def _caches(self, *, training: bool) -> Caches:
        assert self.network is not None
        compute = partial(self._live, training=training)
        return Caches(self.distill, self.feeds, self.network, compute, self.device, self.say)

    def ready_teacher(self, plans: Sequence[Plan], names: Sequence[Names]) -> None:
        """Choose where the teacher's answers come from in training, once it is known what all students need of it.

        ``names`` are what the students' objectives call the teacher's maps.

        Raises:
            CacheError: the teacher cache is of something else, damaged, or does not hold what is needed.
        """
        if self.network is None or not any(plan.needs_teacher for plan in plans):
            self.teacher = NoTeacher()
        elif self.distill.teacher_cache is None:
            modules = [self._for_inference(each) for each in self.network.all]
            self.teacher = self._teacher_of(modules, training=True)
            self._prepare_rule(self.network)
        else:
            assert isinstance(self.feeds.train, ResidentBatches | FileBatches)
            needs = frozenset[str]().union(*(plan.needs for plan in plans))
            self.teacher = self._caches(training=True).of_training(self.feeds.train, needs, names)

    def _prepare_rule(self, network: Network) -> None:
        """Tell a rule that asks for it how hard each training sample is for each teacher."""
        if network.rule is None or not network.rule.needs_losses:
            return
        data = self.feeds.data
        assert data is not None
        batches = unchanged_batches(data, data.train, self.settings, self.device)
        members = list(network.all)
        members.insert(network.rule.principal % len(members), members.pop(0))
        costs: list[Tensor] = []
        self.say(
            f"            how hard each of {len(data.train):,} training images is for {len(members)} experts is measured"
        )
        for batch in batches.at(_in_order(len(data.train), self.settings.batch_size)):
            batch = batch.to(self.device)
            with self.accelerator.autocast():
                told = [
                    FrozenTeacher(each.tapped).signals(self._task_of(each).inputs(batch), batch) for each in members
                ]
            logits = [each.logits for each in told if each.logits is not None]
            costs.append(torch.stack([losses.cross_entropy(each.float(), batch.labels) for each in logits]).cpu())
        network.rule.prepare(torch.cat(costs, dim=1), data.train.index)

    def score_teacher(self) -> Score | None:
        """The teacher's score on the validation split, or on some training samples without one; checked, and once only.

        Raises:
            TeacherError: it is near chance, or its logits are not finite.
        """
        if self.network is None or self._scored:
            return self._teacher_score
        try:
            split = "validation" if self.feeds.validation is not None else "training"
            found = score(self.teacher_logits(split), self.feeds.check())
        except NonFiniteError as error:
            raise TeacherError(f"the teacher cannot teach: {error}") from None
        self.say(f"            the teacher's accuracy is {found.accuracy:.2%} on {found.count:,} {split} images")
        if not self.distill.allow_weak_teacher:
            classes = self.teacher_classes
            assert classes is not None
            check_above_chance(found, classes)
        self._teacher_score, self._scored = found, True
        return found

    # -- students ------------------------------------------------------------------------------------------------------

    def admit(self, plan: Plan, runs: RunFolder | None, *, name: str, measure: bool, say: Say) -> Member:
        """Make a student with all that belongs to it, checked, up to its first step.

        Its weights and the random numbers of its training depend on its own seed alone.

        Raises:
            LimbeckError: what is wrong with the student, or with what its objective needs.
        """
        job = plan.job
        stages = [*plan.stages[:-1], Stage(plan.stages[-1].objective, self.epochs)]
        set_seed(job.settings.seed)
        network = self._open_student(plan, say)
        teacher = self.network if job.teacher is not None else None
        names = connect(network, teacher, self.probe, needs=plan.needs, taps=job.distill.taps, say=say)
        task = VisionTask(network.preprocess, self.channels_last)
        seen = Seen(self.probe)
        student = probe_signals(network.tapped, seen.by(task))
        told = Signals() if teacher is None else self._ask_teacher(teacher, seen)
        check_classes({"student": student, "teacher": told}, self.feeds.classes, self.feeds.name, self.probe)
        told = told.renamed(names)
        set_seed(mix(job.settings.seed, _HEADS) % 2**32)
        self._build(plan, stages, (network, student), (teacher, told), names)
        trainable = Trainable(network.tapped, stages).to(self.device)
        say(f"objective   {plan.objective}")
        random = RandomState.now()
        assert student.logits is not None
        return Member(
            plan,
            network,
            Learner(
                name=name,
                trainable=trainable,
                stages=stages,
                task=task,
                names=names,
                settings=job.settings,
                accelerator=self.accelerator,
                steps=len(self.feeds.train),
                random=random,
                folder=None if runs is None else runs.path,
                on_metrics=(lambda record: None) if runs is None else runs.append_metrics,
            ),
            runs,
            student.logits.shape[-1],
            footprint(trainable, seen.by(task), told, self.probe, job.settings) if measure else Footprint(),
        )

    def _open_student(self, plan: Plan, say: Say) -> Network:
        job, settings = plan.job, plan.job.settings
        who = "student" if job.teacher is not None or self.network is not None else "model"
        made = job.student if isinstance(job.student, str | nn.Module) else job.student()
        network = open_network(
            made,
            who=who,
            data=self.feeds.data,
            probe=self.probe,
            device=self.device,
            classifier=job.distill.student_classifier,
            embedding=bool(plan.needs & _EMBEDDED),
        )
        for other in self._networks:
            # So that two networks that see the same are told so, and it is made once.
            network = replace(network, preprocess=share_preprocess(other, network))
        self._networks.append(network)
        if settings.gradient_checkpointing:
            checkpoint_gradients(network.tapped.network, network.name)
        if self.channels_last:
            network.tapped.to(memory_format=torch.channels_last)
        ratio = ""
        if self.network is not None:
            if any(each.tapped.network is network.tapped.network for each in self.network.all):
                raise SettingError("teacher and student are the same module; the teacher must stay as it is.")
            ratio = f", the teacher's {self.network.parameters / max(1, network.parameters):.1f} times as many"
        say(f"{who:<11} {network.name}: {network.parameters:,} parameters{ratio}")
        return network

    def _ask_teacher(self, teacher: Network, seen: Seen) -> Signals:
        # The same answer serves every student that taps nothing new.
        taps: Names = {group: dict(paths) for group, paths in teacher.tapped.paths.items()}
        if self._told is None or self._told[0] != taps:
            told = FrozenTeacher(teacher.tapped).signals(seen.by(self.teacher_task), seen.batch)
            self._told = taps, told
            self.teacher_classes = None if told.logits is None else told.logits.shape[-1]
        return self._told[1]

    def _build(
        self,
        plan: Plan,
        stages: list[Stage],
        student: tuple[Network, Signals],
        teacher: tuple[Network | None, Signals],
        names: Names,
    ) -> None:
        if "index" in plan.needs:
            if self.feeds.data is None:
                raise SettingError(
                    f"'{plan.objective}' needs to know the whole training set, its labels and each sample's place in it: "
                    "give the data by name or as ImageData instead of a loader of your own."
                )
            labels = self.feeds.data.train.labels_by_index()
            for stage in stages:
                stage.objective.set_training_labels(labels)
        ours, said = student
        theirs, told = teacher
        said = replace(said, constants=constants(ours, self.probe, ours.tapped.paths["preactivations"]))
        if theirs is not None:
            told = replace(told, constants=constants(theirs, self.probe, names["preactivations"]))
        build_objectives(stages, said, told, self.probe)

    # -- speed ---------------------------------------------------------------------------------------------------------

    def _for_inference(self, network: Network) -> nn.Module:
        """The teacher as it is asked in training: what it must record is known by now."""
        inputs = self._task_of(network).inputs(self.probe)
        with self.accelerator.autocast():
            return for_inference(network.tapped, inputs, compile=self.settings.compile, say=logger.info)

    def choose(self, plan: Plan) -> dict[str, Any]:
        """The settings that are left to be measured, as they are from now on: memory order and precision.

        Measured is a step of this student with its teacher, each way in turn, and only where the training is longer than a
        minute; otherwise both stay as they are, so that short runs are the same to the last bit.
        """
        settings = plan.job.settings
        open_ = settings.to_measure()
        layout = Layout(bool(settings.channels_last), settings.precision == "bf16")
        if open_ and self.epochs * len(self.feeds.train) >= _FEW_STEPS:
            found = self._measured(plan, layout, open_)
            layout = Layout(*agreed((found.channels_last, found.bf16)))
        chosen = {"channels_last": layout.channels_last, "precision": "bf16" if layout.bf16 else "fp32"}
        chosen = {name: value for name, value in chosen.items() if name in open_}
        self._arrange(settings.model_copy(update=chosen), layout)
        return chosen

    def _arrange(self, settings: RunSettings, layout: Layout) -> None:
        if settings.precision == "bf16" != self.settings.precision:
            self.accelerator = make_accelerator(settings)
        self.settings = self.settings.model_copy(
            update={"precision": settings.precision, "channels_last": settings.channels_last}
        )
        self.distill = self.distill.model_copy(update={"precision": settings.precision})
        self.channels_last = layout.channels_last
        if layout.channels_last and self.network is not None:
            for each in self.network.all:
                each.tapped.to(memory_format=torch.channels_last)
            self._told = None

    def _measured(self, plan: Plan, simplest: Layout, open_: set[str]) -> Layout:
        member = self.admit(plan_of(plan.job), None, name="trial", measure=False, say=lambda line: None)
        learner, teacher = member.learner, self.network if plan.needs_teacher else None
        seen = Seen(self.probe)
        told = Signals() if teacher is None else self._ask_teacher(teacher, seen).renamed(learner.names)
        parts = [training_step(learner.trainable, seen.by(learner.task), told, self.probe)]
        if teacher is not None and self.distill.teacher_cache is None:
            parts += [forward_pass(each.tapped, seen.by(self._task_of(each))) for each in teacher.all]
        images = seen.by(learner.task).ndim == 4
        layouts = [
            Layout(last, half)
            for half in ((False, True) if "precision" in open_ else (simplest.bf16,))
            for last in ((False, True) if "channels_last" in open_ and images else (simplest.channels_last,))
        ]
        found = fastest_layout(together(parts), self.device, layouts)
        self.dismiss(member)
        if found.seconds * self.epochs * len(self.feeds.train) <= _A_MINUTE:
            return simplest
        self.say(f"layout      {found}")
        return found.layout

    def dismiss(self, member: Member) -> None:
        """Let go of a student that is done, or that another takes the memory of."""
        member.network.tapped.close()
        self._networks.remove(member.network)

    def settle(self) -> None:
        """Everything is checked and training begins: feature maps of the probe are let go."""
        self._told = None
        give_back_memory()


def _in_order(samples: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All places of a split, in order, each in its only slot."""
    for places in torch.arange(samples).split(size):
        yield places, torch.zeros_like(places)


def _feeds_of(data: ImageData | Loaders, settings: RunSettings, device: torch.device) -> Feeds:
    if isinstance(data, Loaders):
        return loader_feeds(data.train, data.validation, data.test, settings, device)
    return image_feeds(data, settings, device)

"""The students of one teacher: each with what is its own, beside what all of them share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from limbeck.authoring import Author
from limbeck.budget import ANSWERS, check_views, without_samples
from limbeck.companions import Companionship
from limbeck.config import RunSettings
from limbeck.data.seeds import mix
from limbeck.engine.fastest import Layout, agreed, fastest_layout, forward_pass, together, training_step
from limbeck.engine.learner import Learner
from limbeck.engine.memory import Footprint, footprint, give_back_memory
from limbeck.engine.probe import build_objectives, check_classes, probe_signals
from limbeck.engine.runtime import make_accelerator
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import SettingError
from limbeck.evaluate import Score
from limbeck.job import Job, Plan, plan_of
from limbeck.matching import Names, connect, constants
from limbeck.modalities import modality_of
from limbeck.modalities.base import Examined
from limbeck.networks import Network, checkpoint_gradients, share_preprocess
from limbeck.policies import parse_policy
from limbeck.random_state import RandomState
from limbeck.runs import RunFolder
from limbeck.signals import Signals
from limbeck.tasks.base import Seen, Task
from limbeck.teachers import NoTeacher, Teacher
from limbeck.teaching import EMBEDDED, Say, Surroundings, Teaching

logger = logging.getLogger("limbeck")

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

    around: what the networks share. teaching: the teacher; None without one. teacher: where its answers come from in
    training, once :meth:`ready_teacher` chose.

    Args:
        plans: of all students that will be admitted: what they need of the teacher is tapped there.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data or the teacher.
    """

    def __init__(self, plans: Sequence[Plan], accelerator: Accelerator, say: Say) -> None:
        job = next((plan.job for plan in plans if plan.job.teacher is not None), plans[0].job)
        self._kind = modality_of(job.data, job.settings.data)
        self._data = self._kind.read([job, *(plan.job for plan in plans)], accelerator, say)
        feeds = self._kind.feeds(self._data, job.settings, accelerator.device)
        if (facts := feeds.modality.facts()) is not None:
            say(f"data        {facts}")
        probe = next(iter(feeds.train.epoch(0))).to(accelerator.device)
        budgeted = job.distill.teacher_budget is not None
        if budgeted:
            check_views(probe)
            probe = without_samples(probe)
        self.around = Surroundings(accelerator, job.settings, job.distill, feeds, probe, say)
        epochs = job.settings.epochs or feeds.modality.usual_epochs
        if epochs is None:
            raise SettingError("epochs is not given; a loader of your own has no usual number.")
        self.epochs = epochs
        self._students: list[Network] = []
        needs = frozenset[str]().union(*(plan.needs for plan in plans))
        self.teaching = self._teaching(job, needs)
        self.teacher: Teacher = NoTeacher()
        self._examined: Examined | None = None

    def _teaching(self, job: Job, needs: frozenset[str]) -> Teaching | None:
        if job.teacher is None:
            return None
        return self.around.feeds.modality.teaching(job.teacher, needs, self.around)

    def close(self) -> None:
        """Take the taps off the networks, which are then as they were given."""
        if self.teaching is not None:
            self.teaching.close()
        for network in self._networks:
            network.close()

    @property
    def _networks(self) -> list[Network]:
        return [*(() if self.teaching is None else self.teaching.network.all), *self._students]

    @property
    def teacher_task(self) -> Task:
        """How the teacher sees a batch; as the students do where there is none."""
        return self.around.task_of(self._networks[0])

    def order(self, settings: RunSettings) -> None:
        """Give the training data the order and views of these settings from now on."""
        around = self.around
        if settings.data_seed != around.settings.data_seed:
            around.feeds, around.settings = self._kind.feeds(self._data, settings, around.device), settings

    def keep_answers(self, runs: RunFolder | None, *, begun: bool) -> None:
        """A teacher with a budget keeps what it says in the run's folder; ``begun``: whether the run's training has begun.

        Raises:
            LimbeckError: it cannot, or the answers of a run that has begun are gone.
        """
        if self.teaching is None or self.around.distill.teacher_budget is None:
            return
        self.teaching.keep_in(None if runs is None else runs.path / ANSWERS, begun=begun)
        if runs is not None:
            # Everything else is checked, and what the calls give is the new run's.
            runs.settle()

    def score_teacher(self) -> Score | None:
        """The teacher's score on the validation split, or on some training samples without one; None without a teacher.

        Raises:
            TeacherError: it is near chance, or its logits are not finite.
        """
        return None if self.teaching is None else self.teaching.score()

    def ready_teacher(self, plans: Sequence[Plan], names: Sequence[Names]) -> None:
        """Choose where the teacher's answers come from in training, once it is known what all students need of it.

        ``names`` are what the students' objectives call the teacher's maps.

        Raises:
            CacheError: the teacher cache is of something else, damaged, or does not hold what is needed.
        """
        if self.teaching is not None:
            self.teacher = self.teaching.ready(plans, names)

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
        around, teaching = self.around, self.teaching if job.teacher is not None else None
        teacher = None if teaching is None else teaching.network
        beside = Companionship(plan, around, teacher)
        network = self._open_student(plan, say)
        names = connect(network, teacher, around.probe, needs=plan.needs, taps=job.distill.taps, say=say)
        task = around.task_of(network)
        seen = Seen(around.probe)
        companions = beside.of(network, seen.by(task), say)
        student = probe_signals(network.tapped, seen.by(task), companions)
        told = Signals() if teaching is None else teaching.of_probe(seen)
        check_classes({"student": student, "teacher": told}, around.feeds.classes, around.feeds.name, around.probe)
        told = told.renamed(names)
        set_seed(mix(job.settings.seed, _HEADS) % 2**32)
        self._build(plan, stages, (network, student), (teacher, told), names)
        trainable = Trainable(network.tapped, stages, companions, network.adapters).to(around.device)
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
                accelerator=around.accelerator,
                steps=len(around.feeds.train),
                random=random,
                folder=None if runs is None else runs.path,
                on_metrics=(lambda record: None) if runs is None else runs.append_metrics,
            ),
            runs,
            student.logits.shape[-1],
            footprint(trainable, seen.by(task), told, around.probe, job.settings) if measure else Footprint(),
        )

    def _open_student(self, plan: Plan, say: Say) -> Network:
        job, settings, around = plan.job, plan.job.settings, self.around
        taught_by = None if self.teaching is None else self.teaching.network
        who = "model" if taught_by is None else "student"
        made = job.student if isinstance(job.student, str | nn.Module) else job.student()
        network = around.feeds.modality.open(
            made,
            who=who,
            probe=around.probe,
            device=around.device,
            classifier=job.distill.student_classifier,
            embedding=bool(plan.needs & EMBEDDED),
            lora=settings.student_lora,
        )
        for other in self._networks:
            # So that two networks that see the same are told so, and it is made once.
            network = replace(network, preprocess=share_preprocess(other, network))
        self._students.append(network)
        if job.distill.documents == "teacher":
            assert self.teaching is not None
            self.teaching.lend_documents(network)
        if settings.gradient_checkpointing:
            checkpoint_gradients(network.tapped.network, network.name)
        if around.channels_last:
            network.tapped.to(memory_format=torch.channels_last)
        ratio = ""
        if taught_by is not None and taught_by.parameters:
            if any(each.tapped.network is network.tapped.network for each in taught_by.all):
                raise SettingError("teacher and student are the same module; the teacher must stay as it is.")
            ratio = f", the teacher's {taught_by.parameters / max(1, network.parameters):.1f} times as many"
        say(f"{who:<11} {network.name}: {network.parameters:,} parameters{ratio}")
        if network.adapters is not None:
            say(f"adapters    {network.adapters.parameters:,} of these numbers learn")
        return network

    def _build(
        self,
        plan: Plan,
        stages: list[Stage],
        student: tuple[Network, Signals],
        teacher: tuple[Network | None, Signals],
        names: Names,
    ) -> None:
        if "index" in plan.needs:
            labels = self.around.feeds.modality.labels_by_index()
            if labels is None:
                raise SettingError(
                    f"'{plan.objective}' needs to know the whole training set, its classes and each sample's place in it: "
                    "give images by name or as ImageData instead of text or a loader of your own."
                )
            for stage in stages:
                stage.objective.set_training_labels(labels)
        for stage in stages:
            if self.teaching is not None and (attack := stage.objective.attack) is not None:
                around = self.around
                around.feeds.modality.check_attack(attack, self.teacher_task, around.probe, str(stage.objective))
        ours, said = student
        theirs, told = teacher
        said = replace(said, constants=constants(ours, self.around.probe, ours.tapped.paths["preactivations"]))
        if theirs is not None:
            told = replace(told, constants=constants(theirs, self.around.probe, names["preactivations"]))
        build_objectives(stages, said, told, self.around.probe)

    def author_of(self, members: Sequence[Member]) -> Author | None:
        """Who writes the texts of a pass, where it is not the data that they come from.

        Raises:
            SettingError: the policy does not fit the data, the teacher or the number of students.
        """
        policy = parse_policy(members[0].job.distill.policy)
        if self.teaching is not None and self.teaching.writes_first:
            return None
        teacher = None if self.teaching is None else self.teaching.network
        author = self.around.feeds.modality.author(policy, members[0].network, teacher, members[0].job.distill)
        assert author is None or len(members) == 1, "a student that writes has a pass of its own"
        return author

    def examined_teacher(self, score: Score) -> tuple[Score, Examined]:
        """The teacher's score on the test split, and what else it did there, which is looked at once."""
        if self._examined is None:
            assert self.teaching is not None
            opened = self.teaching.network
            with self.around.accelerator.autocast():
                modality = self.around.feeds.modality
                self._examined = modality.examine(
                    opened, opened.tapped.network, score, self.around.settings, self.around.device
                )
        return score, self._examined

    # -- speed ---------------------------------------------------------------------------------------------------------

    def choose(self, plan: Plan) -> dict[str, Any]:
        """The settings that are left to be measured, as they are from now on: memory order and precision.

        Measured is a step of this student with its teacher, each way in turn, and only where the training is longer than a
        minute; otherwise both stay as they are, so that short runs are the same to the last bit.
        """
        settings = plan.job.settings
        open_ = settings.to_measure()
        layout = Layout(bool(settings.channels_last), settings.precision == "bf16")
        if open_ and self.epochs * len(self.around.feeds.train) >= _FEW_STEPS:
            found = self._measured(plan, layout, open_)
            layout = Layout(*agreed((found.channels_last, found.bf16)))
        chosen = {"channels_last": layout.channels_last, "precision": "bf16" if layout.bf16 else "fp32"}
        chosen = {name: value for name, value in chosen.items() if name in open_}
        self._arrange(settings.model_copy(update=chosen), layout)
        return chosen

    def _arrange(self, settings: RunSettings, layout: Layout) -> None:
        around = self.around
        if settings.precision == "bf16" != around.settings.precision:
            around.accelerator = make_accelerator(settings)
        around.settings = around.settings.model_copy(
            update={"precision": settings.precision, "channels_last": settings.channels_last}
        )
        around.distill = around.distill.model_copy(update={"precision": settings.precision})
        around.channels_last = layout.channels_last
        if layout.channels_last and self.teaching is not None:
            self.teaching.channels_last()

    def _measured(self, plan: Plan, simplest: Layout, open_: set[str]) -> Layout:
        around = self.around
        member = self.admit(plan_of(plan.job), None, name="trial", measure=False, say=lambda line: None)
        learner, teaching = member.learner, self.teaching if plan.needs_teacher else None
        seen = Seen(around.probe)
        told = Signals() if teaching is None else teaching.of_probe(seen).renamed(learner.names)
        parts = [training_step(learner.trainable, seen.by(learner.task), told, around.probe)]
        if teaching is not None and around.distill.teacher_cache is None and around.distill.teacher_budget is None:
            parts += [forward_pass(each.tapped, seen.by(around.task_of(each))) for each in teaching.network.all]
        inputs = seen.by(learner.task)
        images = isinstance(inputs, Tensor) and inputs.ndim == 4
        layouts = [
            Layout(last, half)
            for half in ((False, True) if "precision" in open_ else (simplest.bf16,))
            for last in ((False, True) if "channels_last" in open_ and images else (simplest.channels_last,))
        ]
        found = fastest_layout(together(parts), around.device, layouts)
        self.dismiss(member)
        if found.seconds * self.epochs * len(around.feeds.train) <= _A_MINUTE:
            return simplest
        around.say(f"layout      {found}")
        return found.layout

    def dismiss(self, member: Member) -> None:
        """Let go of a student that is done, or that another takes the memory of."""
        member.network.close()
        self._students.remove(member.network)

    def settle(self) -> None:
        """Everything is checked and training begins: feature maps of the probe are let go."""
        if self.teaching is not None:
            self.teaching.forget_probe()
        give_back_memory()

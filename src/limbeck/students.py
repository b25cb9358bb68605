"""The students of a session: each made with all that belongs to it, and checked, up to its first step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from accelerate.utils import set_seed
from torch import nn

from limbeck.companions import Companionship
from limbeck.data.seeds import mix
from limbeck.engine.learner import Learner
from limbeck.engine.memory import Footprint, footprint
from limbeck.engine.probe import build_objectives, check_classes, probe_signals
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import SettingError
from limbeck.job import Job, Plan
from limbeck.matching import Names, connect, constants
from limbeck.networks import Network, checkpoint_gradients, share_preprocess
from limbeck.random_state import RandomState
from limbeck.runs import RunFolder
from limbeck.signals import Signals
from limbeck.surroundings import Say, Surroundings
from limbeck.tasks.base import Seen
from limbeck.teaching import EMBEDDED, Teaching

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


class Students:
    """The students that a session has now.

    Args:
        teaching: their teacher; None without one. epochs: of the main stage.
    """

    def __init__(self, around: Surroundings, teaching: Teaching | None, epochs: int) -> None:
        self._around, self._teaching, self._epochs = around, teaching, epochs
        self._networks: list[Network] = []

    @property
    def networks(self) -> list[Network]:
        """The teacher's networks, and those of all students."""
        return [*(() if self._teaching is None else self._teaching.network.all), *self._networks]

    def admit(self, plan: Plan, runs: RunFolder | None, *, name: str, measure: bool, say: Say) -> Member:
        """Make a student with all that belongs to it, checked, up to its first step.

        Its weights and the random numbers of its training depend on its own seed alone.

        Raises:
            LimbeckError: what is wrong with the student, or with what its objective needs.
        """
        job = plan.job
        stages = [*plan.stages[:-1], Stage(plan.stages[-1].objective, self._epochs)]
        set_seed(job.settings.seed)
        around, teaching = self._around, self._teaching if job.teacher is not None else None
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
        job, settings, around = plan.job, plan.job.settings, self._around
        taught_by = None if self._teaching is None else self._teaching.network
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
        for other in self.networks:
            # So that two networks that see the same are told so, and it is made once.
            network = replace(network, preprocess=share_preprocess(other, network))
        self._networks.append(network)
        if job.distill.documents == "teacher":
            assert self._teaching is not None
            self._teaching.lend_documents(network)
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
        around = self._around
        if "index" in plan.needs:
            labels = around.feeds.modality.labels_by_index()
            if labels is None:
                raise SettingError(
                    f"'{plan.objective}' needs to know the whole training set, its classes and each sample's place in it: "
                    "give images by name or as ImageData instead of text or a loader of your own."
                )
            for stage in stages:
                stage.objective.set_training_labels(labels)
        for stage in stages:
            if self._teaching is not None and (attack := stage.objective.attack) is not None:
                task = around.task_of(self._teaching.network)
                around.feeds.modality.check_attack(attack, task, around.probe, str(stage.objective))
        ours, said = student
        theirs, told = teacher
        said = replace(said, constants=constants(ours, around.probe, ours.tapped.paths["preactivations"]))
        if theirs is not None:
            told = replace(told, constants=constants(theirs, around.probe, names["preactivations"]))
        build_objectives(stages, said, told, around.probe)

    def dismiss(self, member: Member) -> None:
        """Let go of a student that is done, or that another takes the memory of."""
        member.network.close()
        self._networks.remove(member.network)

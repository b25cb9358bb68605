"""What the students of one teacher share: data, teacher, and where its answers come from."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator

from limbeck.authoring import Author
from limbeck.budget import ANSWERS, check_views, without_samples
from limbeck.caching import check_asked_for
from limbeck.config import RunSettings
from limbeck.engine.memory import give_back_memory
from limbeck.errors import SettingError
from limbeck.evaluate import Score
from limbeck.job import Job, Plan
from limbeck.matching import Names
from limbeck.modalities import modality_of
from limbeck.modalities.base import Examined
from limbeck.policies import parse_policy
from limbeck.runs import RunFolder
from limbeck.students import Member, Students
from limbeck.surroundings import Say, Surroundings
from limbeck.tasks.base import Task
from limbeck.teachers import NoTeacher, Teacher
from limbeck.teaching import Teaching


class Session:
    """Data, teacher and device, which several students share.

    around: what the networks share. teaching: the teacher; None without one. students: those that it has now. teacher: where
    its answers come from in training, once :meth:`ready_teacher` chose.

    Args:
        plans: of all students that will be admitted: what they need of the teacher is tapped there.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data or the teacher.
    """

    def __init__(self, plans: Sequence[Plan], accelerator: Accelerator, say: Say) -> None:
        job = next((plan.job for plan in plans if plan.job.teacher is not None), plans[0].job)
        check_asked_for(job.distill)
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
        needs = frozenset[str]().union(*(plan.needs for plan in plans))
        self.teaching = self._teaching(job, needs)
        self.students = Students(self.around, self.teaching, epochs)
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
        for network in self.students.networks:
            network.close()

    @property
    def teacher_task(self) -> Task:
        """How the teacher sees a batch; as the students do where there is none."""
        return self.around.task_of(self.students.networks[0])

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

    def author_of(self, members: Sequence[Member]) -> Author | None:
        """Who writes the texts of a pass, where it is not the data that they come from; ready to write.

        Raises:
            SettingError: the policy does not fit the data, the teacher or the number of students, or what writes cannot run
                a network.
        """
        policy = parse_policy(members[0].job.distill.policy)
        if self.teaching is not None and self.teaching.writes_first:
            return None
        teacher = None if self.teaching is None else self.teaching.network
        author = self.around.feeds.modality.author(policy, members[0].network, teacher, members[0].job.distill)
        assert author is None or len(members) == 1, "a student that writes has a pass of its own"
        if author is not None:
            with self.around.accelerator.autocast():
                author.open()
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

    def settle(self) -> None:
        """Everything is checked and training begins: feature maps of the probe are let go."""
        if self.teaching is not None:
            self.teaching.forget_probe()
        give_back_memory()

"""From settings to a trained student: the order in which a run is put together, checked, trained and written down."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from limbeck.data import parse_view_sets
from limbeck.engine.callbacks import Callback
from limbeck.engine.loop import Loop
from limbeck.engine.probe import build_objectives, check_classes, probe_signals
from limbeck.engine.runtime import make_accelerator, whole_parameters
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import NonFiniteError, SettingError, TeacherError
from limbeck.evaluate import Score, score
from limbeck.feeds import Feeds, image_feeds, loader_feeds, read_data
from limbeck.heads import Projected
from limbeck.job import Distilled, Job, Loaders, stages_of
from limbeck.machine import command_line, device_name, now, peak_memory_mb, versions
from limbeck.matching import connect, constants
from limbeck.models import projected_name, save_weights
from limbeck.networks import Network, card, checkpoint_gradients, open_network, read_card, share_preprocess
from limbeck.objectives import Objective, parse_objective
from limbeck.plugins import load_plugins
from limbeck.runs import RESULT, STUDENT, Result, RunFolder, run_name
from limbeck.signals import Batch, Signals
from limbeck.tasks.vision import VisionTask
from limbeck.teachers import FrozenTeacher, NoTeacher, Teacher, check_above_chance

logger = logging.getLogger("limbeck")


def run(
    job: Job, *, folder: bool = True, callbacks: Sequence[Callback] = (), say: Callable[[str], None] = logger.info
) -> Distilled:
    """Do a job: check everything, score the teacher, train, select, test once, and write the run's folder.

    Args:
        folder: whether to keep a run folder; without one nothing is written.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data, the networks or the loss.
    """
    settings = job.settings
    load_plugins(settings.plugins)
    if settings.augment != "auto":
        parse_view_sets(settings.augment)
    # A copy, so that one objective can serve many runs: each starts with fresh heads and scales.
    objective = copy.deepcopy(job.objective) if isinstance(job.objective, Objective) else parse_objective(job.objective)
    stages = stages_of(job, objective)
    accelerator = make_accelerator(settings)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    runs = RunFolder(job.described(objective), _default_name(job, objective)) if folder else None
    networks: list[Network] = []
    try:
        set_seed(settings.seed)
        return _Session(job, objective, stages, accelerator, runs, callbacks, say, networks).run()
    except BaseException:
        if runs is not None:
            runs.leave()
        raise
    finally:
        for network in networks:
            network.tapped.close()
        accelerator.free_memory()


def _default_name(job: Job, objective: Objective) -> str:
    student = job.student if isinstance(job.student, str) else type(job.student).__name__
    label = job.objective if isinstance(job.objective, str) else str(objective)
    method = "alone" if job.teacher is None else label
    return run_name(job.settings.data, student, method, job.settings.seed)


class _Session:
    """One run, from networks to result."""

    def __init__(
        self,
        job: Job,
        objective: Objective,
        stages: list[Stage],
        accelerator: Accelerator,
        runs: RunFolder | None,
        callbacks: Sequence[Callback],
        say: Callable[[str], None],
        networks: list[Network],
    ) -> None:
        self.job, self.objective, self.accelerator, self.runs = job, objective, accelerator, runs
        self.callbacks, self.say, self.settings = callbacks, say, job.settings
        self.device: torch.device = accelerator.device
        self.feeds = self._feeds()
        self.epochs = self.settings.epochs or self._usual_epochs()
        self.stages = [*stages[:-1], Stage(stages[-1].objective, self.epochs)]
        self.probe = next(iter(self.feeds.train.epoch(0))).to(self.device)
        self.needs = frozenset[str]().union(*(stage.objective.needs for stage in stages))
        self.student = self._student()
        networks.append(self.student)
        self.teacher = self._teacher()
        if self.teacher is not None:
            networks.append(self.teacher)
        connect(self.student, self.teacher, self.probe, needs=self.needs, taps=self.job.distill.taps, say=self.say)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _feeds(self) -> Feeds:
        data = self.job.data
        if isinstance(data, Loaders):
            return loader_feeds(data.train, data.validation, data.test, self.settings, self.device)
        if data is None:
            # The first process downloads what is missing; the others read it from the disk then.
            with self.accelerator.main_process_first():
                data = read_data(self.settings)
        feeds = image_feeds(data, self.settings, self.device)
        assert feeds.data is not None
        splits = {"train": feeds.data.train, "validation": feeds.data.val, "test": feeds.data.test}
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
        self.say(f"data        {feeds.name}: {sizes} images, {len(feeds.data.classes)} classes; views {feeds.views}")
        return feeds

    def _usual_epochs(self) -> int:
        if self.feeds.data is None:
            raise SettingError("epochs is not given; a loader of your own has no usual number.")
        return self.feeds.data.recipe.epochs

    def _student(self) -> Network:
        who = "student" if self.job.teacher is not None else "model"
        student = open_network(
            self.job.student,
            who=who,
            data=self.feeds.data,
            probe=self.probe,
            device=self.device,
            classifier=self.job.distill.student_classifier,
            embedding=bool(self.needs & {"embedding", "classifier", "embedding_map"}),
        )
        if self.settings.gradient_checkpointing:
            checkpoint_gradients(student.tapped.network, student.name)
        if self.settings.channels_last:
            student.tapped.to(memory_format=torch.channels_last)
        self.say(f"{who:<11} {student.name}: {student.parameters:,} parameters")
        return student

    def _teacher(self) -> Network | None:
        if self.job.teacher is None:
            return None
        teacher = open_network(
            self.job.teacher,
            who="teacher",
            data=self.feeds.data,
            probe=self.probe,
            device=self.device,
            classifier=self.job.distill.teacher_classifier,
            embedding=bool(self.needs & {"embedding", "classifier", "embedding_map"}),
            image_size=self.job.distill.teacher_size,
        )
        if teacher.tapped.network is self.student.tapped.network:
            raise SettingError("teacher and student are the same module; the teacher must stay as it is.")
        if self.settings.channels_last:
            teacher.tapped.to(memory_format=torch.channels_last)
        ratio = teacher.parameters / max(1, self.student.parameters)
        self.say(f"teacher     {teacher.name}: {teacher.parameters:,} parameters, {ratio:.1f} times the student's")
        return teacher

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> Distilled:
        task = self._task()
        teacher: Teacher = NoTeacher() if self.teacher is None else FrozenTeacher(self.teacher.tapped)
        if self.settings.compile and self.teacher is not None:
            self.teacher.tapped.compile()
        signals = probe_signals(self.student.tapped, teacher, task, self.probe)
        check_classes(
            dict(zip(("student", "teacher"), signals, strict=True)), self.feeds.classes, self.feeds.name, self.probe
        )
        self._build_objectives(*signals)
        assert signals[0].logits is not None
        classes = signals[0].logits.shape[-1]
        del signals  # feature maps among them, which would stay in memory throughout
        trainable = Trainable(self.student.tapped, self.stages).to(self.device)
        self.say(f"objective   {self.objective}")
        needed = any(stage.objective.needs_teacher for stage in self.stages)
        loop = self._loop(trainable, task, teacher if needed else NoTeacher(), classes)
        teacher_score = self._score_teacher(task, teacher, classes)
        if self.runs is not None and self.runs.resumed:
            resumed = loop.resume()
            self.runs.drop_metrics_after(loop.position.step if resumed else -1)
            self.say(
                f"resumed     at step {loop.position.step}"
                if resumed
                else "resumed     from the start: no checkpoint yet"
            )
        if self.runs is not None:
            self.runs.settle()
        outcome = loop.run()
        network = loop.finish()
        return self._write(network, loop, task, teacher, teacher_score, outcome)

    def _build_objectives(self, student: Signals, teacher: Signals) -> None:
        if "index" in self.needs:
            if self.feeds.data is None:
                raise SettingError(
                    f"'{self.objective}' needs to know the whole training set, its labels and each sample's place in it: "
                    "give the data by name or as ImageData instead of a loader of your own."
                )
            labels = self.feeds.data.train.labels_by_index()
            for stage in self.stages:
                stage.objective.set_training_labels(labels)
        student = replace(student, constants=constants(self.student, self.probe))
        if self.teacher is not None:
            teacher = replace(teacher, constants=constants(self.teacher, self.probe))
        build_objectives(self.stages, student, teacher, self.probe)

    def _task(self) -> VisionTask:
        shared = self.student.preprocess if self.teacher is None else share_preprocess(self.student, self.teacher)
        return VisionTask(self.student.preprocess, shared, self.settings.channels_last)

    def _loop(self, trainable: Trainable, task: VisionTask, teacher: Teacher, classes: int) -> Loop:
        return Loop(
            trainable=trainable,
            stages=self.stages,
            teacher=teacher,
            task=task,
            batches=self.feeds.train,
            validation=self.feeds.validation,
            settings=self.settings,
            accelerator=self.accelerator,
            classes=classes,
            folder=None if self.runs is None else self.runs.path,
            on_metrics=self._on_metrics,
            callbacks=[*self._trackers(), *self.callbacks],
        )

    def _trackers(self) -> list[Callback]:
        from limbeck.engine.trackers import Trackers

        if not self.settings.trackers:
            return []
        folder = self.settings.runs_dir if self.runs is None else self.runs.path
        return [Trackers(self.accelerator, self.settings, folder)]

    def _on_metrics(self, record: dict[str, Any]) -> None:
        if self.runs is not None:
            self.runs.append_metrics(record)

    def _score_teacher(self, task: VisionTask, teacher: Teacher, classes: int) -> Score | None:
        if self.teacher is None:
            return None
        try:
            found = score(self._logits_of_teacher(task, teacher), self.feeds.check())
        except NonFiniteError as error:
            raise TeacherError(f"the teacher cannot teach: {error}") from None
        split = "validation" if self.feeds.validation is not None else "training"
        self.say(f"            its accuracy is {found.accuracy:.2%} on {found.count:,} {split} images")
        if not self.job.distill.allow_weak_teacher:
            check_above_chance(found, classes)
        return found

    def _logits_of_teacher(self, task: VisionTask, teacher: Teacher) -> Callable[[Batch], Tensor]:
        def predict(batch: Batch) -> Tensor:
            batch = batch.to(self.device)
            with self.accelerator.autocast():
                signals: Signals = teacher.signals(task.teacher_input(batch), batch)
            assert signals.logits is not None
            return signals.logits

        return predict

    # -- the result ----------------------------------------------------------------------------------------------------

    def _write(
        self,
        network: nn.Module,
        loop: Loop,
        task: VisionTask,
        teacher: Teacher,
        teacher_score: Score | None,
        outcome: Any,
    ) -> Distilled:
        with whole_parameters(loop.trainable):
            test, teacher_test = self._test(loop, task, teacher)
        student_name = self._name_of(network)
        result = Result(
            objective=str(self.objective),
            student=student_name,
            teacher=None if self.teacher is None else self.teacher.name,
            data=self.feeds.name,
            seed=self.settings.seed,
            epochs=self.epochs,
            select="last" if loop.best_state is None else "best",
            validation_last=outcome.last_accuracy,
            validation_best=outcome.best_accuracy,
            best_epoch=outcome.best_epoch,
            test=None if test is None else test.as_dict(),
            teacher_validation=None
            if teacher_score is None or self.feeds.validation is None
            else teacher_score.accuracy,
            teacher_test=None if teacher_test is None else teacher_test.as_dict(),
            student_parameters=sum(parameter.numel() for parameter in network.parameters()),
            teacher_parameters=None if self.teacher is None else self.teacher.parameters,
            seconds=round(outcome.seconds, 3),
            peak_memory_mb=peak_memory_mb(self.device),
            device=device_name(self.device),
            processes=self.accelerator.num_processes,
            versions=versions(),
            command=command_line(),
            finished=now(),
        )
        if self.runs is not None and self.accelerator.is_main_process:
            # With a new classifier the old one is gone from the network, and does not belong in the file.
            state = network.state_dict() if isinstance(network, Projected) else loop.kept_state
            self._keep(state, student_name, result, self.runs)
        return Distilled(network, result, None if self.runs is None else self.runs.path)

    def _test(self, loop: Loop, task: VisionTask, teacher: Teacher) -> tuple[Score | None, Score | None]:
        if self.feeds.test is None:
            return None, None
        if self.teacher is None:
            return score(loop.predict, self.feeds.test()), None
        predict = self._logits_of_teacher(task, teacher)
        if teacher_logits_differ(loop, predict, self.probe):
            return score(loop.predict, self.feeds.test()), None
        return score(loop.predict, self.feeds.test(), predict), score(predict, self.feeds.test())

    def _name_of(self, network: nn.Module) -> str:
        """The text that makes the finished student again."""
        if not isinstance(network, Projected):
            return self.student.name
        path = self.student.tapped.paths["embedding_map"]["embedding_map"]
        assert self.student.tapped.classifier is not None
        return projected_name(self.student.name, path, self.student.tapped.classifier, network.head)

    def _keep(self, state: dict[str, Tensor], student_name: str, result: Result, runs: RunFolder) -> None:
        from limbeck.report.card import model_card

        metadata = card(student_name, self.feeds.data, self.student.preprocess)
        save_weights(state, runs.path / STUDENT, metadata)
        runs.write_text("README.md", model_card(result, self.feeds.classes, read_card(runs.path / STUDENT)))
        runs.write_text(RESULT, json.dumps(result.as_dict(), indent=2) + "\n")


def teacher_logits_differ(loop: Loop, predict: Callable[[Batch], Tensor], probe: Batch) -> bool:
    """Whether the two networks tell different numbers of classes apart, so that agreement has no meaning."""
    with torch.no_grad():
        return loop.predict(probe).shape[-1] != predict(probe).shape[-1]

"""What is to be trained: networks, objective, settings and data, and the stages that follow from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from limbeck.combination import Combination, teacher_name
from limbeck.config import DistillSettings, RunSettings, TrainSettings
from limbeck.data import ImageData
from limbeck.data.search import SearchData
from limbeck.data.text import TextData
from limbeck.engine.trainable import Stage
from limbeck.errors import SettingError
from limbeck.modalities import modality_of
from limbeck.objectives import CE, Contrastive, Objective, WeightedSum, parse_objective
from limbeck.objectives.companions import Companions
from limbeck.runs import Result


@dataclass(frozen=True)
class Loaders:
    """A user's own data: loaders of (inputs, labels) batches, with inputs as the networks want them."""

    train: DataLoader[Any]
    validation: DataLoader[Any] | None = None
    test: DataLoader[Any] | None = None


@dataclass(frozen=True)
class Distilled:
    """A finished run: the student with its selected weights in eval mode, what was found, and where it was written."""

    student: nn.Module
    result: Result
    folder: Path | None


@dataclass(frozen=True)
class Job:
    """What to train. ``teacher`` is None to train on labels alone; networks and objectives may be objects or text.

    A student may be a function that makes it, which is called after the seed is set.
    """

    student: str | nn.Module | Callable[[], nn.Module]
    teacher: str | nn.Module | Combination | None
    objective: str | Objective
    settings: RunSettings
    data: ImageData | TextData | SearchData | Loaders | None = None

    def described(self, objective: Objective) -> RunSettings:
        """The settings with what was given as an object told in words, so that a run's folder says what was run."""

        def named(part: object, words: str | None) -> str | None:
            return part if isinstance(part, str) else words

        data = (
            "loader"
            if isinstance(self.data, Loaders)
            else self.data.name
            if self.data is not None
            else self.settings.data
        )
        words: dict[str, Any] = {"data": data}
        student = self.student_name
        if isinstance(self.settings, DistillSettings):
            words |= {"student": student, "teacher": named(self.teacher, teacher_name(self.teacher))}
            words |= {"objective": named(self.objective, str(objective))}
        elif isinstance(self.settings, TrainSettings):
            words |= {"model": student}
            if not self.on_labels:
                words |= {"objective": named(self.objective, str(objective))}
        return self.settings.model_copy(update=words)

    def with_settings(self, **values: Any) -> Job:
        """The same job with other values of some settings."""
        return replace(self, settings=self.settings.model_copy(update=values))

    @property
    def student_name(self) -> str:
        """The student's text, or its class or function."""
        if isinstance(self.student, str):
            return self.student
        return type(self.student).__name__ if isinstance(self.student, nn.Module) else self.student.__name__

    @property
    def on_labels(self) -> bool:
        """Whether it is trained on labels alone, as it is where no objective is given."""
        return self.teacher is None and isinstance(self.objective, CE | Contrastive)

    @property
    def distill(self) -> DistillSettings:
        """The settings that only distillation has, at their defaults when there is no teacher."""
        return self.settings if isinstance(self.settings, DistillSettings) else DistillSettings()


@dataclass(frozen=True)
class Plan:
    """A job with its objective and stages of its own, ready to be built: one for each run."""

    job: Job
    objective: Objective
    stages: tuple[Stage, ...]

    @property
    def needs(self) -> frozenset[str]:
        """What the objectives of all stages need."""
        return frozenset[str]().union(*(stage.objective.needs for stage in self.stages))

    @property
    def needs_teacher(self) -> bool:
        """Whether any of them asks a teacher."""
        return any(stage.objective.needs_teacher for stage in self.stages)

    @property
    def companions(self) -> Companions | None:
        """The networks that learn beside the student, the same in all stages that want some.

        Raises:
            SettingError: objectives ask for different ones.
        """
        return WeightedSum([(1.0, stage.objective) for stage in self.stages]).companions()


def plan_of(job: Job) -> Plan:
    """The plan of a job.

    Raises:
        SettingError: an objective does not exist, or the stages do not fit (see :func:`stages_of`).
    """
    # A copy, so that one objective can serve many runs: each starts with fresh heads and scales.
    objective = copy.deepcopy(job.objective) if isinstance(job.objective, Objective) else parse_objective(job.objective)
    return Plan(job, objective, tuple(stages_of(job, objective)))


def job_of(settings: TrainSettings | DistillSettings) -> Job:
    """The job that settings from a recipe or the command line describe.

    Raises:
        SettingError: no model, teacher or student is named.
    """
    settings.check_networks()
    if isinstance(settings, TrainSettings):
        assert settings.model is not None
        return Job(settings.model, None, objective_of(settings), settings)
    assert settings.student is not None
    told = taught(settings, None)
    assert told.objective is not None
    return Job(settings.student, settings.teacher, told.objective, told)


def taught(settings: DistillSettings, data: ImageData | TextData | SearchData | Loaders | None) -> DistillSettings:
    """The settings with an objective: the one given, or what is usual for such data."""
    usual = modality_of(data, settings.data).usual_objectives[-1]
    return settings.model_copy(update={"objective": settings.objective or usual})


def alone(data: ImageData | TextData | SearchData | Loaders | None, setting: str) -> Objective:
    """What a network learns on labels alone: cross-entropy, and in search the contrast of a query's document with others."""
    return modality_of(data, setting).alone()


def objective_of(
    settings: TrainSettings, data: ImageData | TextData | SearchData | Loaders | None = None
) -> str | Objective:
    """What a network is trained on without a teacher: the objective given, or :func:`alone` with the labels.

    Raises:
        SettingError: label smoothing is asked for of an objective that has its own settings.
    """
    if settings.objective is None:
        found = alone(data, settings.data)
        return found if not settings.label_smoothing else CE(label_smoothing=settings.label_smoothing)
    if settings.label_smoothing:
        raise SettingError(
            "label_smoothing is of the cross-entropy that is trained on when no objective is given; write it into the "
            f"objective, as in 'ce(label_smoothing={settings.label_smoothing:g})'."
        )
    return settings.objective


def stages_of(job: Job, objective: Objective) -> list[Stage]:
    """The stages of a job: those of its settings, those that its objective asks to come first, and the main one.

    The main stage has 0 epochs where the settings leave the number to the data's recipe.

    Raises:
        SettingError: nothing is left for the main stage, a batch that must stay whole would be split, or there is no teacher
            for an objective that needs one.
    """
    epochs = job.settings.epochs or 0  # filled in from the data's recipe once it is known
    main = objective if isinstance(objective, WeightedSum) else WeightedSum([(1.0, objective)])
    first = [
        Stage(parse_objective(s.objective), s.epochs, tuple(s.trains), s.lr, s.schedule) for s in job.distill.stages
    ]
    initial, main = _initial_stages(main)
    stages = [*first, *initial, Stage(main, epochs)]
    _check_accumulation(job.settings, stages)
    if job.teacher is None:
        _check_alone(stages)
    return stages


def _initial_stages(objective: WeightedSum) -> tuple[list[Stage], WeightedSum]:
    """The stages that parts of the objective ask to come first, and what is left of it for the main one."""
    initial = []
    for _, _, part in objective.entries():
        stage = part.initial_stage()
        if stage is not None:
            # The weight is for the main stage; alone, a loss has nothing to be weighed against.
            whole = WeightedSum([(1.0, stage.objective)])
            initial.append(Stage(whole, stage.epochs, stage.trains, stage.lr, schedule="constant"))
    rest = [(weight, part) for _, weight, part in objective.entries() if not part.only_initial]
    if not rest:
        raise SettingError(
            f"'{objective}' is trained in a stage of its own only, and nothing is left for the main one: add an objective, "
            "as in 'ce + …', or give init_epochs=0 to train it in the main stage."
        )
    return initial, WeightedSum(rest) if len(rest) < len(objective.weights) else objective


def _check_alone(stages: Sequence[Stage]) -> None:
    for stage in stages:
        if stage.objective.needs_teacher:
            raise SettingError(
                f"objective: '{stage.objective}' learns from a teacher, and there is none; 'limbeck distill' has one. "
                "Without: ce, dml, one, and those of which 'limbeck explain' says 'no teacher'."
            )


def _check_accumulation(settings: RunSettings, stages: Sequence[Stage]) -> None:
    for stage in stages:
        if settings.accumulation > 1 and stage.objective.batch_coupled:
            raise SettingError(
                f"accumulation is {settings.accumulation}, and '{stage.objective}' compares the samples of a batch with each "
                "other: micro-batches would change what it learns. Use a smaller batch_size, bf16, gradient_checkpointing, or "
                "more processes, across which its samples are gathered."
            )

"""Distillation from Python, with your own networks and loaders or with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from limbeck.chain import run_with_assistants
from limbeck.combination import Combination, teacher_name
from limbeck.comparison import Comparison, run_comparison
from limbeck.config import CompareSettings, DistillSettings, TrainSettings
from limbeck.contest import Contest, Student, objectives_of
from limbeck.data import ImageData
from limbeck.data.search import SearchData
from limbeck.data.text import TextData
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.errors import SettingError
from limbeck.job import Distilled, Job, Loaders, objective_of, taught
from limbeck.objectives import Objective

Data = str | ImageData | TextData | SearchData | Loaders | DataLoader[Any]


def distill(
    teacher: nn.Module | str | Combination,
    student: nn.Module | str,
    data: Data = "digits",
    objective: Objective | str | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Distilled:
    """Distil a teacher into a student.

    >>> limbeck.distill(teacher, student, train_loader, CE() + 0.9 * KD(temperature=4) + ICD(), epochs=30)  # doctest: +SKIP

    Args:
        teacher: a network that returns logits (B, C), or its name with weights, as in "resnet32x4@teacher.safetensors". It is
            put in eval mode and never changes. Several are one by a rule, as in "mean(runs/one, runs/two)" or
            :class:`~limbeck.combination.Combination`.
        student: a network or a name. A network given is trained in place.
        data: a data set's name, an :class:`~limbeck.data.ImageData`, a :class:`~limbeck.data.text.TextData`, a
            :class:`~limbeck.data.search.SearchData`, or a loader of (inputs, labels) batches whose inputs go to both networks
            as they are; ``Loaders(train, validation, test)`` for more than a training set.
        objective: an objective, an expression, or a preset's name; "icd+kd" when not given, in search "embed_distill".
        callbacks: your own code in the loop.
        settings: any of :class:`~limbeck.config.DistillSettings`, such as ``epochs=240, lr=0.05, seed=1``. A run folder is
            written when ``name`` is among them, and not otherwise.

    Returns:
        The student with its selected weights in eval mode, the result, and the run's folder.

    Raises:
        LimbeckError: whatever is wrong, before any long work.
    """
    made = DistillSettings.make(_with_names(settings, data, teacher=teacher, student=student, objective=objective))
    if objective is None:
        made = taught(made, _data(data))
        objective = made.objective
    assert objective is not None
    job = Job(student, teacher, objective, made, _data(data))
    return run_with_assistants(job, folder=made.name is not None, callbacks=callbacks)


def train(
    model: nn.Module | str,
    data: Data = "digits",
    objective: Objective | str | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Distilled:
    """Train one network without a teacher, for example to be one; the arguments are those of :func:`distill`.

    ``objective`` is cross-entropy when not given; it must not need a teacher, as "dml" and "one" do not. ``settings`` are
    those of :class:`~limbeck.config.TrainSettings`.
    """
    words = {"objective": objective} if isinstance(objective, str) else {}
    made = TrainSettings.make(_with_names(settings, data, model=model, **words))
    job = Job(model, None, objective_of(made, _data(data)) if objective is None else objective, made, _data(data))
    return run(job, folder=made.name is not None, callbacks=callbacks)


def compare(
    teacher: nn.Module | str | Combination | None,
    students: Student | Sequence[Student],
    data: Data = "digits",
    objectives: Sequence[Objective | str] | str | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Comparison:
    """Teach many students of one teacher in as few passes over the data as the memory allows, and compare them.

    >>> limbeck.compare(teacher, "resnet8x4", "cifar100", "kd, icd(alpha=[0.1, 0.5])", seeds=3)  # doctest: +SKIP

    Each student learns exactly what :func:`distill` would teach it alone. The student alone and ``kd`` (in search
    ``contrastive + listwise_kl``) come along unless ``baselines=False``.

    Args:
        teacher, data, callbacks: as for :func:`distill`; None for objectives that need no teacher, such as ``dml``.
        students: names, or functions without arguments that make a network anew; one or several.
        objectives: objectives, presets or expressions; text may hold several with commas between them, and ranges. When not
            given what is usual for the data (images: ``icd`` and ``icd+kd``), or none where there are ``members``.
        settings: any of :class:`~limbeck.config.CompareSettings`, such as ``seeds=5, epochs=240``. A folder is written when
            ``name`` is among them, and not otherwise.

    Returns:
        The trained students, results, failures and the rows of the table.

    Raises:
        LimbeckError: whatever is wrong with any student, before the first is trained; and when all of them fail.
    """
    several = [students] if isinstance(students, str) or callable(students) else list(students)
    listed = (
        [objectives] if isinstance(objectives, str | Objective) else None if objectives is None else list(objectives)
    )
    names = [student if isinstance(student, str) else student.__name__ for student in several]
    texts = {} if listed is None else {"objectives": [str(objective) for objective in listed]}
    values = _with_names(settings, data, teacher=teacher)
    for name in ("student", "objectives"):
        if name in values:
            raise SettingError(f"{name} is given twice.")
    made = CompareSettings.make({**values, "student": names, **texts})
    name = data.name if isinstance(data, ImageData | TextData | SearchData) else "loader"
    words = {} if isinstance(data, str) else {"data": name}
    called = None if teacher is None else made.teacher or teacher_name(teacher)
    usual = {} if listed is not None else {"objectives": objectives_of(made, _data(data))}
    made = made.model_copy(update={**words, **usual, "teacher": called})
    contest = Contest(made, teacher, several, listed or made.objectives or [], _data(data))
    return run_comparison(contest, folder=made.name is not None, callbacks=callbacks)


def _with_names(settings: dict[str, Any], data: Data, **parts: Any) -> dict[str, Any]:
    for name in ("data", *parts):
        if name in settings:
            raise SettingError(f"{name} is given twice.")
    names = {name: value for name, value in parts.items() if isinstance(value, str)}
    return {**settings, **names, **({"data": data} if isinstance(data, str) else {})}


def _data(data: Data) -> ImageData | TextData | SearchData | Loaders | None:
    if isinstance(data, str):
        return None
    if isinstance(data, ImageData | TextData | SearchData | Loaders):
        return data
    return Loaders(data)

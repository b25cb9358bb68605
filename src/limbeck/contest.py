"""Who takes part in a comparison: a job for each student, by the name of its folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.combination import Combination
from limbeck.config import (
    CompareSettings,
    DistillSettings,
    MemberSettings,
    TeacherSettings,
    TrainSettings,
    not_named,
)
from limbeck.data import ImageData
from limbeck.data.search import SearchData
from limbeck.data.text import TextData
from limbeck.errors import SettingError
from limbeck.expression import split_at_commas
from limbeck.job import Job, Loaders, alone
from limbeck.modalities import modality_of
from limbeck.models.spec import RANDOM, parse_spec
from limbeck.objectives import Objective, parse_objective
from limbeck.objectives.expand import expand_objectives, objective_identity
from limbeck.policies import parse_policy
from limbeck.runs import run_name
from limbeck.text_engine import OWN, writes_whole

Student = str | Callable[[], nn.Module]

ALONE = "alone"
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Contest:
    """What is compared. Networks may be text; students also functions that make them; objectives text or objects.

    teacher: None where students learn from labels and from each other alone.
    """

    settings: CompareSettings
    teacher: str | nn.Module | Combination | None
    students: Sequence[Student]
    objectives: Sequence[str | Objective]
    data: ImageData | TextData | SearchData | Loaders | None = None


@dataclass(frozen=True)
class Entry:
    """One kind of student, which is trained once for each seed. ``name`` tells it apart from the others."""

    name: str
    student: Student
    objective: str | Objective
    own: dict[str, Any]


def contest_of(settings: CompareSettings) -> Contest:
    """The contest that settings from a recipe or the command line describe.

    Raises:
        SettingError: no student is named.
    """
    settings.check_networks()
    students = [name for text in settings.student for name in split_at_commas(text, "student")]
    objectives = objectives_of(settings, None)
    named = settings.model_copy(update={"objectives": objectives})
    return Contest(named, settings.teacher, students, objectives)


def objectives_of(settings: CompareSettings, data: ImageData | TextData | SearchData | Loaders | None) -> list[str]:
    """What the settings compare: the objectives given, or what is usual for such data; none beside a recipe's members."""
    if settings.objectives is not None or settings.members:
        return settings.objectives or []
    return list(modality_of(data, settings.data).usual_objectives)


def entries_of(contest: Contest) -> list[Entry]:
    """The kinds of students, the baselines first, each with a name of its own.

    Raises:
        SettingError: an objective that cannot be read or stands for another one's twin, nothing to compare, or a setting of the
            teacher where there is none.
    """
    texts = [objective for objective in contest.objectives if isinstance(objective, str)]
    objects = [objective for objective in contest.objectives if isinstance(objective, Objective)]
    objectives: list[str | Objective] = [*(expand_objectives(texts) if texts else []), *objects]
    if contest.teacher is None:
        _check_no_teacher(contest.settings, objectives)
    if contest.settings.baselines and contest.students:
        named = {objective_identity(str(objective)) for objective in objectives}
        baseline = modality_of(contest.data, contest.settings.data).baseline
        taught = contest.teacher is not None and objective_identity(baseline) not in named
        objectives = [ALONE, *([baseline] if taught else []), *objectives]
    entries = [Entry("", student, objective, {}) for student in contest.students for objective in objectives]
    for member in contest.settings.members:
        entries += _of_recipe(member, contest.students)
    _check_engine(contest.settings, entries)
    if not entries:
        raise SettingError("objectives: there is nothing to compare; name some, as in --objectives 'kd, icd, icd+kd'.")
    return _with_names(entries, several_students=len({str(entry.student) for entry in entries}) > 1)


def _check_no_teacher(settings: CompareSettings, objectives: Sequence[str | Objective]) -> None:
    for name in ("teacher_budget", "teacher_cache", "teacher_classifier", "teacher_size"):
        if getattr(settings, name) is not None:
            raise SettingError(f"{name} is of a teacher, and none is given.")
    if settings.documents != "own":
        raise SettingError("documents=teacher is of a teacher, and none is given.")
    for objective in objectives:
        found = objective if isinstance(objective, Objective) else parse_objective(objective)
        if found.needs_teacher:
            raise SettingError(
                f"{not_named('teacher')} '{objective}' learns from one; dml and one, for example, do not."
            )


def _check_engine(settings: CompareSettings, entries: Sequence[Entry]) -> None:
    taught = [entry.own for entry in entries if entry.objective != ALONE]
    policies = {own.get("policy", settings.policy) for own in taught if own.get("text_engine") != OWN}
    if settings.text_engine != OWN and not any(writes_whole(parse_policy(policy)) for policy in policies):
        raise SettingError(
            f"text_engine: {settings.text_engine} writes whole answers for policies such as student or teacher, and no student "
            "of this comparison has one."
        )


def _of_recipe(member: MemberSettings, students: Sequence[Student]) -> list[Entry]:
    named: Sequence[Student] = [member.student] if member.student else students
    expressions = [ALONE] if member.objective == ALONE else expand_objectives(member.objective)
    return [Entry("", student, expression, member.own()) for student in named for expression in expressions]


def _with_names(entries: Sequence[Entry], *, several_students: bool) -> list[Entry]:
    made: dict[str, Entry] = {}
    for entry in entries:
        twins = [other.own for other in entries if _same_kind(other, entry)]
        stem = _stem(entry, [], several_students)
        told = _stem(entry, _differing(entry.own, twins), several_students)
        names = [stem, *([told] if len(told) <= _LONGEST_NAME else [])]
        names += [f"{stem}-{number}" for number in range(2, len(entries) + 2)]
        # A setting that tells it apart from the others of its kind is a better name than a number.
        name = next(name for name in (names if told == stem else names[1:]) if name not in made)
        made[name] = replace(entry, name=name)
    return list(made.values())


def _same_kind(one: Entry, other: Entry) -> bool:
    return (_text(one.student), str(one.objective)) == (_text(other.student), str(other.objective))


def _differing(own: Mapping[str, Any], twins: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings, each with its value, that others of its kind do not have so."""
    return [f"{name}-{value}" for name, value in own.items() if any(twin.get(name) != value for twin in twins)]


def _stem(entry: Entry, differing: Sequence[str], several_students: bool) -> str:
    parts = [_text(entry.student)] if several_students else []
    made = run_name(*parts, str(entry.objective), *differing, 0).removesuffix("-seed0")
    return re.sub("-{2,}", "-", made) if differing else made


def _text(student: Student) -> str:
    return student if isinstance(student, str) else student.__name__


def _starts_from_weights(student: Student) -> bool:
    """Whether students of all seeds start the same, but for heads of objectives."""
    if not isinstance(student, str):
        return False
    if Path(student).expanduser().exists():
        return True
    parsed = parse_spec(student)
    return parsed.weights not in (None, RANDOM) or (parsed.source == "hf" and parsed.weights is None)


def jobs_of(contest: Contest, entries: Sequence[Entry], folder: Path | None) -> dict[str, Job]:
    """A job for each student and seed, by its name. Each is what ``limbeck distill`` or ``train`` would do by itself."""
    settings = contest.settings
    seeds = range(settings.seed, settings.seed + settings.seeds)
    return {f"{entry.name}-seed{seed}": _job(contest, entry, seed, folder) for entry in entries for seed in seeds}


def _job(contest: Contest, entry: Entry, seed: int, folder: Path | None) -> Job:
    settings = contest.settings
    name = f"{entry.name}-seed{seed}"
    values: dict[str, Any] = {field: getattr(settings, field) for field in TeacherSettings.model_fields}
    values |= entry.own | {"seed": seed, "name": name, "overwrite": False, "trackers": []}
    independent = settings.independent_order
    if independent is None:
        independent = _starts_from_weights(entry.student)
    values |= {"order_seed": None if independent else settings.data_seed}
    if folder is not None:
        values |= {"runs_dir": folder, "resume": (folder / name).exists()}
    # An engine is for those of a comparison that it can write for.
    if "text_engine" not in entry.own and not writes_whole(parse_policy(values["policy"])):
        values["text_engine"] = OWN
    student = _text(entry.student)
    if entry.objective == ALONE or contest.teacher is None:
        # The student alone learns on the images that the teacher is asked about.
        values["train_limit"] = settings.teacher_budget or settings.train_limit
        own = {field: values[field] for field in TrainSettings.model_fields if field in values} | {"model": student}
        if entry.objective == ALONE:
            return Job(entry.student, None, alone(contest.data, settings.data), TrainSettings.make(own), contest.data)
        made = TrainSettings.make({**own, "objective": str(entry.objective)})
        return Job(entry.student, None, entry.objective, made, contest.data)
    names = {"student": student, "objective": str(entry.objective)}
    taught = DistillSettings.make({**values, **names})
    return Job(entry.student, contest.teacher, entry.objective, taught, contest.data)

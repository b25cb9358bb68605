"""Teacher assistants: networks between teacher and student, each of which learns from the one before it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from torch import nn

from limbeck.combination import Combination, parse_combination, rule_of
from limbeck.data import ImageData
from limbeck.distillation import default_name, run
from limbeck.engine.callbacks import Callback
from limbeck.errors import SettingError
from limbeck.feeds import read_data
from limbeck.job import Distilled, Job, Loaders, plan_of
from limbeck.modalities import modality_of
from limbeck.models import create_model
from limbeck.models.spec import parse_spec
from limbeck.networks import resolve
from limbeck.runs import RESULT
from limbeck.surroundings import Say
from limbeck.teachers.rules import Rule

logger = logging.getLogger("limbeck")

CHAIN = "chain"
"""The student learns from the last assistant; otherwise by a rule from the teacher and all assistants."""

Teacher = str | nn.Module


def run_with_assistants(
    job: Job, *, folder: bool = True, callbacks: Sequence[Callback] = (), say: Say = logger.info
) -> Distilled:
    """Do a job as :func:`limbeck.distillation.run` does, after the assistants that its settings name.

    Each assistant is a run of its own in ``NAME-assistants``, with the settings of the job but the seeds that follow its own,
    and learns from the one before it (teacher assistants: arXiv 1902.03393). With ``resume`` those that are finished are taken
    as they are.

    Raises:
        SettingError: an assistant that is larger than its teacher, or a rule that does not exist; before anything is trained.
    """
    names = job.distill.assistants
    if not names:
        return run(job, folder=folder, callbacks=callbacks, say=say)
    rule = _rule(job.distill.taught_by)
    if rule is not None and job.distill.teacher_budget is not None:
        raise SettingError(
            f"teacher_budget: with taught_by={job.distill.taught_by} the teacher would be asked again after the first "
            "assistant has spent the budget; give taught_by=chain, where only the first assistant asks it."
        )
    if rule is not None and job.distill.documents == "teacher":
        raise SettingError(
            f"documents=teacher: with taught_by={job.distill.taught_by} the student would have several teachers, and it "
            "searches the documents of one; give taught_by=chain."
        )
    # Of several processes the first looks at the data, and downloads them, before the others need them.
    if os.environ.get("RANK", "0") == "0":
        _check_sizes(job, names)
    own = job.settings.runs_dir / (job.settings.name or default_name(plan_of(job)))
    home = own.with_name(f"{own.name}-assistants") if folder else None
    taught: list[Teacher] = [_single(job.teacher)]
    for number, name in enumerate(names, 1):
        say(f"assistant   {number} of {len(names)}: {name}")
        taught.append(_assistant(job, number, name, taught[-1], home, callbacks, say))
    say("student     learns now")
    # From small to large, as rules that tell them apart by size want them.
    teacher = taught[-1] if rule is None else Combination(rule, tuple(reversed(taught)))
    # The student's own run begins after the assistants, so it may not be there to be resumed.
    settings = {"assistants": [], "taught_by": CHAIN, "resume": job.settings.resume and folder and own.exists()}
    if rule is None and isinstance(teacher, str):
        settings["teacher"] = teacher
    elif all(isinstance(each, str) for each in taught):
        settings["teacher"] = str(teacher)
    last = replace(job, teacher=teacher).with_settings(**settings)
    return run(last, folder=folder, callbacks=callbacks, say=say)


def _assistant(
    job: Job, number: int, name: str, teacher: Teacher, home: Path | None, callbacks: Sequence[Callback], say: Say
) -> Teacher:
    """The trained assistant: its run's folder, or where none is kept the network itself."""
    own = f"{number}-{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}"
    settings = {"assistants": [], "taught_by": CHAIN, "student": name, "name": own, "resume": False}
    settings["documents"] = "own"  # it is to teach where documents lie
    settings["objective"] = job.distill.assistant_objective or job.distill.objective
    # Generations of one network (born-again, arXiv 1805.04770) must not all start from the same weights.
    settings["seed"] = (job.settings.seed + number) % 2**32
    settings |= {"teacher": teacher} if isinstance(teacher, str) else {}
    objective = job.distill.assistant_objective or job.objective
    if home is not None:
        settings |= {"runs_dir": home, "resume": job.settings.resume and (home / own).exists()}
        if settings["resume"] and (home / own / RESULT).is_file():
            say(f"            {home / own} is finished")
            return str(home / own)
    made = replace(job, student=name, teacher=teacher, objective=objective).with_settings(**settings)
    done = run(made, folder=home is not None, callbacks=callbacks, say=say)
    return done.student if done.folder is None else str(done.folder)


def _rule(text: str) -> Rule | None:
    return None if text == CHAIN else rule_of(text)


def _single(teacher: str | nn.Module | Combination | None) -> Teacher:
    combined = parse_combination(teacher) if isinstance(teacher, str) else teacher
    if teacher is None or isinstance(combined, Combination):
        raise SettingError("assistants: the first one learns from one teacher, given by name or as a network.")
    assert not isinstance(teacher, Combination)
    return teacher


def _check_sizes(job: Job, names: Sequence[str]) -> None:
    """Networks by name are made once, for the data, and let go again."""
    teacher = _single(job.teacher)
    if isinstance(job.data, Loaders):
        raise SettingError(
            "assistants are networks by name, which need data by name too, or an ImageData; a loader tells no classes."
        )
    if not modality_of(job.data, job.settings.data).quickly_made:
        return  # language models by name may be gigabytes of weights; the order is the user's word
    data = read_data(job.settings) if job.data is None else job.data
    assert isinstance(data, ImageData)
    sizes = [_size(model, data) for model in (teacher, *names)]
    called = [teacher if isinstance(teacher, str) else "the teacher", *names]
    for (above, size), (name, own) in pairwise(zip(called, sizes, strict=True)):
        if own > size:
            raise SettingError(
                f"assistants: {name} has {own:,} parameters, more than the {size:,} of {above}, from which it would learn; "
                "name them from large to small."
            )


def _size(model: Teacher, data: ImageData) -> int:
    if isinstance(model, str):
        text = parse_spec(resolve(model)).text
        sizes = {"num_classes": len(data.classes), "in_channels": data.in_channels, "image_size": max(data.image_size)}
        model = create_model(text, **sizes).network
    return sum(parameter.numel() for parameter in model.parameters())

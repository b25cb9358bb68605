"""Students at the end of their training: with their selected weights, tested, and written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from limbeck.engine.loop import Loop
from limbeck.engine.runtime import whole_parameters
from limbeck.errors import Failure, NonFiniteError
from limbeck.evaluate import Score, scores
from limbeck.heads import Projected
from limbeck.job import Distilled
from limbeck.machine import command_line, device_name, now, peak_memory_mb, versions
from limbeck.modalities.base import Examined
from limbeck.models import projected_name, save_weights
from limbeck.networks import read_card
from limbeck.runs import RESULT, STUDENT, Result, RunFolder
from limbeck.session import Session
from limbeck.signals import Batch
from limbeck.students import Member

Tested = tuple[Score, Examined]
"""A network's score on the test split, and what else it did there."""


def finished(session: Session, loop: Loop, members: Sequence[Member]) -> list[Distilled | None]:
    """The students that a loop has trained, tested in one pass, with what was found; None for one that failed.

    A run's folder gets all of it. Raises NonFiniteError where a student or the teacher cannot be scored.
    """
    going = [member for member in members if member.learner.failure is None]
    networks = {member.learner.name: member.learner.finish() for member in going}
    with ExitStack() as contexts:
        for member in going:
            contexts.enter_context(whole_parameters(member.learner.trainable))
        found, teacher_test = _test(session, going)
        for member in going:
            error = found.get(member.learner.name)
            if isinstance(error, NonFiniteError):
                if not loop.isolate:
                    raise error
                member.learner.fail(Failure(str(error), loop.position.step, now()))
        told = _examined(session, [member for member in going if member.learner.failure is None], networks, found)
    taught = None if teacher_test is None else session.examined_teacher(teacher_test)
    return [
        None
        if member.learner.failure is not None
        else _write(session, loop, member, networks[member.learner.name], told.get(member.learner.name), taught)
        for member in members
    ]


def _examined(
    session: Session,
    members: Sequence[Member],
    networks: Mapping[str, nn.Module],
    found: Mapping[str, Score | NonFiniteError],
) -> dict[str, Tested]:
    tested = {}
    for member in members:
        name = member.learner.name
        score = found.get(name)
        if isinstance(score, Score):
            around = session.around
            with around.accelerator.autocast():
                more = around.feeds.modality.examine(
                    member.network, networks[name], score, member.job.settings, around.device
                )
            tested[name] = score, more
    return tested


def _test(session: Session, members: Sequence[Member]) -> tuple[dict[str, Score | NonFiniteError], Score | None]:
    """The scores of all students on the test split by their names, and the teacher's, in one pass.

    In the place of a score that cannot be is its error. Raises NonFiniteError where the teacher's cannot.
    """
    batches = session.around.feeds.test
    if batches is None:
        return {}, None
    answering = session.teaching if session.teaching is not None and session.teaching.on_test else None
    # Agreement has no meaning where the networks tell different numbers of classes apart.
    beside = [
        m for m in members if m.job.teacher is not None and answering is not None and m.classes == answering.classes
    ]
    alone = [m for m in members if m not in beside]
    names = [m.learner.name for m in alone]
    found = dict(zip(names, scores([m.learner.predict for m in alone], batches()), strict=True))
    if answering is None or not beside:
        return found, None
    teacher = _Once(answering.logits("test"))
    *ours, teacher_test = scores([*(m.learner.predict for m in beside), teacher], batches(), teacher)
    if isinstance(teacher_test, NonFiniteError):
        raise teacher_test
    return found | dict(zip((m.learner.name for m in beside), ours, strict=True)), teacher_test


class _Once:
    """A network's logits for a batch, computed once however many ask."""

    def __init__(self, predict: Callable[[Batch], Tensor]) -> None:
        self._predict = predict
        self._last: tuple[Batch, Tensor] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, self._predict(batch)
        return self._last[1]


def _write(
    session: Session,
    loop: Loop,
    member: Member,
    network: nn.Module,
    tested: Tested | None,
    teacher_tested: Tested | None,
) -> Distilled:
    learner, taught = member.learner, member.job.teacher is not None
    outcome, alone = learner.outcome, len(loop.learners) == 1
    teaching = session.teaching if taught else None
    teacher = None if teaching is None else teaching.network
    validated = teaching is not None and teaching.on_test and session.around.feeds.validation is not None
    checked = session.score_teacher() if validated else None
    student_name = _name_of(member, network)
    result = Result(
        objective=str(member.plan.objective),
        student=student_name,
        teacher=None if teacher is None else teacher.name,
        data=session.around.feeds.name,
        seed=member.job.settings.seed,
        epochs=session.epochs,
        select="last" if learner.selection.best is None else "best",
        validation_last=outcome.last_accuracy,
        validation_best=outcome.best_accuracy,
        best_epoch=outcome.best_epoch,
        judged=outcome.judged,
        test=_figures(tested),
        teacher_validation=None if checked is None else checked.accuracy,
        teacher_test=_figures(teacher_tested) if tested is not None and tested[0].agreement is not None else None,
        student_parameters=sum(parameter.numel() for parameter in network.parameters()),
        teacher_parameters=None if teacher is None else teacher.parameters or None,  # none that are known of a server
        extra_parameters=_extra(learner.trainable, network),
        seconds=round(loop.seconds if alone else outcome.own_seconds, 3),
        shared_seconds=None if alone else round(loop.shared_seconds, 3),
        shared_with=len(loop.learners),
        memory_mb=None if alone else round((member.footprint.kept + member.footprint.passing) / 2**20, 1),
        teacher_calls=None if teaching is None else teaching.calls,
        peak_memory_mb=peak_memory_mb(session.around.device),
        device=device_name(session.around.device),
        processes=session.around.accelerator.num_processes,
        versions=versions(),
        command=command_line(),
        finished=now(),
    )
    if member.runs is not None and session.around.accelerator.is_main_process:
        # With a new classifier the old one is gone from the network, and does not belong in the file.
        state = network.state_dict() if isinstance(network, Projected) else learner.kept_state
        # Before the result, which says that the run is done.
        ours, theirs = (None if each is None else each[1] for each in (tested, teacher_tested))
        session.around.feeds.modality.write(member.runs, network, ours, theirs, member.network.adapters)
        _keep(session, member, state, student_name, result, member.runs)
    return Distilled(network, result, None if member.runs is None else member.runs.path)


def _figures(tested: Tested | None) -> dict[str, float] | None:
    return None if tested is None else {**tested[0].as_dict(), **tested[1].figures}


def _extra(trainable: nn.Module, network: nn.Module) -> int:
    kept = {id(parameter) for parameter in network.parameters()}
    return sum(parameter.numel() for parameter in trainable.parameters() if id(parameter) not in kept)


def _name_of(member: Member, network: nn.Module) -> str:
    """The text that makes the finished student again."""
    if not isinstance(network, Projected):
        return member.network.name
    tapped = member.network.tapped
    assert tapped.classifier is not None
    path = tapped.paths["embedding_map"]["embedding_map"]
    return projected_name(member.network.name, path, tapped.classifier, network.head)


def _keep(
    session: Session, member: Member, state: dict[str, Tensor], student_name: str, result: Result, runs: RunFolder
) -> None:
    from limbeck.report.card import model_card

    metadata = session.around.feeds.modality.card(student_name, member.network)
    save_weights(state, runs.path / STUDENT, metadata)
    runs.write_text("README.md", model_card(result, session.around.feeds.classes, read_card(runs.path / STUDENT)))
    runs.write_text(RESULT, json.dumps(result.as_dict(), indent=2) + "\n")

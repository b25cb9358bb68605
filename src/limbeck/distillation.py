"""From settings to trained students: the order in which runs are put together, checked, trained and written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.data import parse_view_sets
from limbeck.engine.callbacks import Callback
from limbeck.engine.loop import Loop
from limbeck.engine.runtime import make_accelerator, whole_parameters
from limbeck.errors import Failure, NonFiniteError
from limbeck.evaluate import Score, scores
from limbeck.heads import Projected
from limbeck.job import Distilled, Job, Plan, plan_of
from limbeck.machine import command_line, device_name, now, peak_memory_mb, versions
from limbeck.modalities.base import Examined
from limbeck.models import projected_name, save_weights
from limbeck.networks import read_card
from limbeck.plugins import load_plugins
from limbeck.runs import RESULT, STUDENT, Result, RunFolder, run_name
from limbeck.session import Member, Session
from limbeck.signals import Batch
from limbeck.teachers import NoTeacher
from limbeck.teaching import Say

logger = logging.getLogger("limbeck")


def run(job: Job, *, folder: bool = True, callbacks: Sequence[Callback] = (), say: Say = logger.info) -> Distilled:
    """Do a job: check everything, score the teacher, train, select, test once, and write the run's folder.

    Args:
        folder: whether to keep a run folder; without one nothing is written.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data, the networks or the loss.
    """
    with ready(job.settings) as accelerator:
        plan = plan_of(job)
        runs = RunFolder(job.described(plan.objective), default_name(plan)) if folder else None
        with leaving(runs), opened([plan], accelerator, say) as session:
            plan = settled_plan(session, plan, runs)
            member = session.admit(plan, runs, name="student", measure=False, say=say)
            path = None if runs is None else runs.path
            callbacks = [*trackers_of(session, path), *callbacks]
            session.keep_answers(runs, begun=path is not None and (path / CHECKPOINT).exists())
            session.score_teacher()
            session.ready_teacher([plan], [member.learner.names])
            loop = loop_of(session, [member], path, None if path is None else path / CHECKPOINT, callbacks)
            if runs is not None and runs.resumed:
                resumed = loop.resume()
                runs.drop_metrics_after(loop.position.step if resumed else -1)
                where = f"at step {loop.position.step}" if resumed else "from the start: no checkpoint yet"
                say(f"resumed     {where}")
            if runs is not None:
                runs.settle()
            (done,) = teach(session, loop, [member])
            assert done is not None
            return done


CHECKPOINT = Path("checkpoints") / "last.pt"


@contextmanager
def ready(settings: RunSettings) -> Iterator[Accelerator]:
    """An accelerator for the block, made once the plugins are loaded and the views are checked."""
    load_plugins(settings.plugins)
    if settings.augment != "auto":
        parse_view_sets(settings.augment)
    accelerator = make_accelerator(settings)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    try:
        yield accelerator
    finally:
        accelerator.free_memory()


@contextmanager
def leaving(runs: RunFolder | None) -> Iterator[None]:
    """When the block fails, a run folder with nothing in it is taken away again."""
    try:
        yield
    except BaseException:
        if runs is not None:
            runs.leave()
        raise


@contextmanager
def opened(plans: Sequence[Plan], accelerator: Accelerator, say: Say) -> Iterator[Session]:
    """A session for the block; afterwards the networks are as they were given."""
    session = Session(plans, accelerator, say)
    try:
        yield session
    finally:
        session.close()


def settled_plan(session: Session, plan: Plan, runs: RunFolder | None) -> Plan:
    """The plan with the settings that were left to be measured, which its folder then tells."""
    known = {} if runs is None else runs.chosen
    job = plan.job.with_settings(**known)
    chosen = session.choose(replace(plan, job=job))
    job = job.with_settings(**chosen)
    if runs is not None and chosen:
        runs.record(job.described(plan.objective))
    return replace(plan, job=job)


def loop_of(
    session: Session,
    members: Sequence[Member],
    folder: Path | None,
    checkpoint: Path | None,
    callbacks: Sequence[Callback],
    *,
    isolate: bool = False,
) -> Loop:
    """The loop that trains these students in one pass."""
    teacher = session.teacher if any(member.plan.needs_teacher for member in members) else NoTeacher()
    return Loop(
        learners=[member.learner for member in members],
        teacher=teacher,
        teacher_task=session.teacher_task,
        batches=session.around.feeds.train,
        validation=session.around.feeds.validation,
        judge=session.around.feeds.modality.judge(session.around.settings, session.around.device),
        settings=session.around.settings,
        accelerator=session.around.accelerator,
        classes=members[0].classes,
        folder=folder,
        checkpoint_path=checkpoint,
        isolate=isolate,
        author=session.author_of(members),
        adversary=session.around.feeds.modality.adversary(teacher, session.teacher_task),
        samples=session.around.feeds.modality.samples,
        callbacks=callbacks,
    )


def trackers_of(session: Session, folder: Path | None) -> list[Callback]:
    """The experiment trackers that the settings name. Raises MissingExtraError for one that is not installed."""
    from limbeck.engine.trackers import Trackers

    settings = session.around.settings
    if not settings.trackers:
        return []
    return [Trackers(session.around.accelerator, settings, folder or settings.runs_dir)]


def teach(session: Session, loop: Loop, members: Sequence[Member]) -> list[Distilled | None]:
    """Train students in one pass, test them in another, and write down what was found; None for one that failed."""
    session.settle()
    loop.run()
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


Tested = tuple[Score, Examined]
"""A network's score on the test split, and what else it did there."""


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
        select="last" if learner.best_state is None else "best",
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


def default_name(plan: Plan) -> str:
    """What a run is called that was given no name."""
    job = plan.job
    label = job.objective if isinstance(job.objective, str) else str(plan.objective)
    method = "alone" if job.on_labels else label
    return run_name(job.settings.data, job.student_name, method, job.settings.seed)

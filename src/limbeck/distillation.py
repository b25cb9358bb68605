"""From settings to trained students: the order in which runs are put together, checked, trained and written down."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from limbeck.config import RunSettings
from limbeck.data import parse_view_sets
from limbeck.engine.callbacks import Callback
from limbeck.engine.lesson import Lesson
from limbeck.engine.loop import Loop
from limbeck.engine.runtime import make_accelerator
from limbeck.finishing import finished
from limbeck.job import Distilled, Job, Plan, plan_of
from limbeck.layouts import choose
from limbeck.plugins import load_plugins
from limbeck.runs import RunFolder, run_name
from limbeck.session import Session
from limbeck.students import Member
from limbeck.surroundings import Say
from limbeck.teachers import NoTeacher

logger = logging.getLogger("limbeck")


def run(job: Job, *, folder: bool = True, callbacks: Sequence[Callback] = (), say: Say = logger.info) -> Distilled:
    """Do a job: check everything, score the teacher, train, select, test once, and write the run's folder.

    Args:
        folder: whether to keep a run folder; without one nothing is written.
        say: gets a line for each thing a user wants to know before the first step.

    Raises:
        LimbeckError: what is wrong with the settings, the data, the networks or the loss.
    """
    accelerator = ready(job.settings)
    plan = plan_of(job)
    runs = RunFolder(job.described(plan.objective), default_name(plan)) if folder else None
    with leaving(runs), opened([plan], accelerator, say) as session:
        plan = settled_plan(session, plan, runs)
        member = session.students.admit(plan, runs, name="student", measure=False, say=say)
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


def ready(settings: RunSettings) -> Accelerator:
    """An accelerator, made once the plugins are loaded and the views are checked."""
    load_plugins(settings.plugins)
    if settings.augment != "auto":
        parse_view_sets(settings.augment)
    accelerator = make_accelerator(settings)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    return accelerator


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
    chosen = choose(session, replace(plan, job=job))
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
    lesson = Lesson(
        teacher,
        session.teacher_task,
        session.around.accelerator,
        accumulation=session.around.settings.accumulation,
        author=session.author_of(members),
        adversary=session.around.feeds.modality.adversary(teacher, session.teacher_task),
        classes=members[0].classes,
    )
    return Loop(
        learners=[member.learner for member in members],
        lesson=lesson,
        batches=session.around.feeds.train,
        validation=session.around.feeds.validation,
        judge=session.around.feeds.modality.judge(session.around.settings, session.around.device),
        settings=session.around.settings,
        accelerator=session.around.accelerator,
        folder=folder,
        checkpoint_path=checkpoint,
        isolate=isolate,
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
    try:
        loop.run()
        return finished(session, loop, members)
    finally:
        session.around.accelerator.free_memory()


def default_name(plan: Plan) -> str:
    """What a run is called that was given no name."""
    job = plan.job
    label = job.objective if isinstance(job.objective, str) else str(plan.objective)
    method = "alone" if job.on_labels else label
    return run_name(job.settings.data, job.student_name, method, job.settings.seed)

"""The settings of speed that are left to be measured: memory order and precision."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from limbeck.config import RunSettings
from limbeck.engine.fastest import Layout, agreed, fastest_layout, forward_pass, together, training_step
from limbeck.engine.runtime import make_accelerator
from limbeck.job import Plan, plan_of
from limbeck.session import Session
from limbeck.signals import Signals
from limbeck.tasks.base import Seen

_FEW_STEPS, _A_MINUTE = 200, 60.0  # below either, finding the fastest layout is not worth the time


def choose(session: Session, plan: Plan) -> dict[str, Any]:
    """The settings that are left to be measured, as they are in the session from now on: memory order and precision.

    Measured is a step of this student with its teacher, each way in turn, and only where the training is longer than a
    minute; otherwise both stay as they are, so that short runs are the same to the last bit.
    """
    settings = plan.job.settings
    open_ = settings.to_measure()
    layout = Layout(bool(settings.channels_last), settings.precision == "bf16")
    if open_ and session.epochs * len(session.around.feeds.train) >= _FEW_STEPS:
        found = _measured(session, plan, layout, open_)
        layout = Layout(*agreed((found.channels_last, found.bf16)))
    chosen = {"channels_last": layout.channels_last, "precision": "bf16" if layout.bf16 else "fp32"}
    chosen = {name: value for name, value in chosen.items() if name in open_}
    _arrange(session, settings.model_copy(update=chosen), layout)
    return chosen


def _arrange(session: Session, settings: RunSettings, layout: Layout) -> None:
    around = session.around
    if settings.precision == "bf16" != around.settings.precision:
        around.accelerator = make_accelerator(settings)
    around.settings = around.settings.model_copy(
        update={"precision": settings.precision, "channels_last": settings.channels_last}
    )
    around.distill = around.distill.model_copy(update={"precision": settings.precision})
    around.channels_last = layout.channels_last
    if layout.channels_last and session.teaching is not None:
        session.teaching.channels_last()


def _measured(session: Session, plan: Plan, simplest: Layout, open_: set[str]) -> Layout:
    around = session.around
    member = session.students.admit(plan_of(plan.job), None, name="trial", measure=False, say=lambda line: None)
    learner, teaching = member.learner, session.teaching if plan.needs_teacher else None
    seen = Seen(around.probe)
    told = Signals() if teaching is None else teaching.of_probe(seen).renamed(learner.names)
    parts = [training_step(learner.trainable, seen.by(learner.task), told, around.probe)]
    if teaching is not None and around.distill.teacher_cache is None and around.distill.teacher_budget is None:
        parts += [forward_pass(each.tapped, seen.by(around.task_of(each))) for each in teaching.network.all]
    inputs = seen.by(learner.task)
    images = isinstance(inputs, Tensor) and inputs.ndim == 4
    layouts = [
        Layout(last, half)
        for half in ((False, True) if "precision" in open_ else (simplest.bf16,))
        for last in ((False, True) if "channels_last" in open_ and images else (simplest.channels_last,))
    ]
    found = fastest_layout(together(parts), around.device, layouts)
    session.students.dismiss(member)
    if found.seconds * session.epochs * len(around.feeds.train) <= _A_MINUTE:
        return simplest
    around.say(f"layout      {found}")
    return found.layout

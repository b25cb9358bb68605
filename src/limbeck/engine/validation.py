"""Students on the validation split: their scores, and the figure that selects weights in the place of the accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from accelerate import Accelerator

from limbeck.engine.learner import Learner
from limbeck.engine.runtime import whole_parameters
from limbeck.errors import NonFiniteError
from limbeck.evaluate.accuracy import Score, scores
from limbeck.evaluate.judge import Judge
from limbeck.signals import Batch
from limbeck.taps import evaluating

Judged = dict[str, float] | None
"""A judge's figure by its name."""


def evaluate(
    learners: Sequence[Learner], batches: Iterable[Batch], judge: Judge | None, accelerator: Accelerator
) -> tuple[list[Score | NonFiniteError], list[Judged | NonFiniteError]]:
    """Score and judge each student (its moving average when there is one) in eval mode, in one pass."""
    with ExitStack() as contexts:
        for learner in learners:
            for context in (
                learner.selection.averaged(),
                whole_parameters(learner.trainable),
                evaluating(learner.trainable),
            ):
                contexts.enter_context(context)
            learner.share_buffers()
        scored = scores([learner.predict for learner in learners], batches)
        return scored, [_judged(learner, judge, accelerator) for learner in learners]


def _judged(learner: Learner, judge: Judge | None, accelerator: Accelerator) -> Judged | NonFiniteError:
    if judge is None:
        return None
    try:
        with learner.stopwatch, accelerator.autocast():
            return {judge.name: judge.of(learner.trainable.student)}
    except NonFiniteError as error:
        return error

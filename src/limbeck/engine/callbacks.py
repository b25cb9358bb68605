"""Where a user's own code joins the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.engine.learner import Learner
    from limbeck.engine.loop import Loop


class Callback:
    """Override what you need; every method gets the running loop.

    ``loop.position`` says where it is, ``loop.trainable`` is what trains, ``loop.stop = True`` ends the run after the epoch
    under way. Metrics are plain floats that were fetched from the device already. Where several students share the loop,
    ``loop.learners`` are all of them, and a metric's name begins with its student's, as in ``icd-seed0/loss``.
    """

    def on_start(self, loop: Loop) -> None:
        """Before the first step, or before the first step after a resume."""

    def on_log(self, loop: Loop, metrics: dict[str, float]) -> None:
        """Each time metrics are fetched, every ``log_steps`` steps."""

    def on_epoch(self, loop: Loop, metrics: dict[str, float]) -> None:
        """After each epoch, with the validation metrics when it was validated."""

    def on_failure(self, loop: Loop, learner: Learner) -> None:
        """When one of several students fails and the others go on; ``learner.failure`` says why."""

    def on_end(self, loop: Loop) -> None:
        """After the last step."""

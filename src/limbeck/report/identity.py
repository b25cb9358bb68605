"""What sets runs of one objective apart: they are of one method only where their settings agree."""

from __future__ import annotations

import json
from typing import Any

from limbeck.config import defaults_of_runs
from limbeck.report.read import Run

# Where, how and from what a run was started, or what its result says itself: no reason to call it another method.
_SAME_METHOD = {
    *(
        "seed",
        "order_seed",
        "name",
        "runs_dir",
        "data_dir",
        "workers",
        "trackers",
        "download",
        "log_steps",
        "checkpoint_epochs",
    ),
    *("checkpoint_steps", "validate_epochs", "plugins", "objective", "data", "epochs"),
    *("device", "compile", "skip_unreadable", "label_smoothing", "teacher_cache", "cache_check"),
}


def variants(runs: list[Run]) -> list[str]:
    """For each run, the settings that set it apart from others of the same objective, networks, data and epochs.

    Networks of one name can start from different weights: the texts that name them count, as in ``resnet32x4@FILE``.
    Each run is of something (``Run.about``).
    """
    usual = defaults_of_runs()
    identities = [_identity(run) for run in runs]
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for identity, run in zip(identities, runs, strict=True):
        groups.setdefault(identity, []).append(run)
    texts = []
    for identity, run in zip(identities, runs, strict=True):
        twins = groups[identity]
        names = [name for name in dict.fromkeys(n for t in twins for n in t.settings) if name not in _SAME_METHOD]
        differing = [n for n in names if len({_told({**usual, **t.settings}.get(n)) for t in twins}) > 1]
        texts.append(", ".join(f"{name}={({**usual, **run.settings}).get(name)}" for name in differing))
    return texts


def _identity(run: Run) -> tuple[Any, ...]:
    result = run.about
    assert result is not None
    return result.data, result.student, result.teacher, result.objective, result.epochs


def _told(value: Any) -> str:
    return json.dumps(value, default=str)

"""What sets runs of one objective apart: they are of one method only where their settings agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.config import defaults_of_runs
from limbeck.runs import Result

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


def variants(results: Sequence[Result], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each run, the settings that set it apart from others of the same objective, networks, data and epochs.

    Networks of one name can start from different weights: the texts that name them count, as in ``resnet32x4@FILE``.

    Args:
        results: what each run is of.
        settings: of each run, as its folder tells them.
    """
    usual = defaults_of_runs()
    identities = [_identity(result) for result in results]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for identity, own in zip(identities, settings, strict=True):
        groups.setdefault(identity, []).append(own)
    texts = []
    for identity, own in zip(identities, settings, strict=True):
        twins = groups[identity]
        names = [name for name in dict.fromkeys(n for t in twins for n in t) if name not in _SAME_METHOD]
        differing = [n for n in names if len({_told({**usual, **t}.get(n)) for t in twins}) > 1]
        values = {name: {**usual, **own}.get(name) for name in differing}
        texts.append(", ".join(f"{name}={value}" for name, value in values.items() if value is not None))
    return texts


def _identity(result: Result) -> tuple[Any, ...]:
    return result.data, result.student, result.teacher, result.objective, result.epochs


def _told(value: Any) -> str:
    return json.dumps(value, default=str)

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
_TEXT = "policy"


def variants(results: Sequence[Result], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each run, the settings that set it apart from others of the same objective, networks, data and epochs.

    Networks of one name can start from different weights: the texts that name them count, as in ``resnet32x4@FILE``. Which
    text is seen is said of all objectives where it differs between any of one teacher, without the setting's name.

    Args:
        results: what each run is of.
        settings: of each run, as its folder tells them.
    """
    usual = defaults_of_runs()
    whole = [{**usual, **own} for own in settings]
    named = [name for name in dict.fromkeys(n for own in settings for n in own) if name not in {*_SAME_METHOD, _TEXT}]
    texts = []
    for own, result in zip(whole, results, strict=True):
        alike = [(each, other) for each, other in zip(whole, results, strict=True) if _around(other) == _around(result)]
        twins = [each for each, other in alike if other.objective == result.objective]
        said = [str(own.get(_TEXT))] if _differs(_TEXT, [each for each, _ in alike]) else []
        said += [f"{name}={own[name]}" for name in named if own.get(name) is not None and _differs(name, twins)]
        texts.append(", ".join(said))
    return texts


def _around(result: Result) -> tuple[Any, ...]:
    """What a run is of, beside its objective."""
    return result.data, result.student, result.teacher, result.epochs


def _differs(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(each.get(name), default=str) for each in settings}) > 1

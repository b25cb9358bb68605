"""What the result of an unfinished run will say of who is taught what, by its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.data.search import search_of
from limbeck.errors import LimbeckError
from limbeck.objectives import parse_objective, presets
from limbeck.report.names import ALONE
from limbeck.runs import Result


def planned(settings: Mapping[str, Any]) -> Result | None:
    """The result that settings lead to, with all figures empty; None where they do not tell."""
    texts = {name: settings.get(name) for name in ("student", "model", "teacher", "data", "objective")}
    student = texts["student"] or texts["model"]
    if not isinstance(student, str) or not isinstance(texts["data"], str):
        return None
    teacher, objective = texts["teacher"], texts["objective"]
    return Result(
        objective=_whole(objective) if isinstance(objective, str) else ALONE[search_of(texts["data"]) is not None],
        # A network is known by what stands before the file of its weights.
        student=student.split("@")[0],
        teacher=teacher.split("@")[0] if isinstance(teacher, str) else None,
        data=texts["data"],
        seed=_number(settings, "seed"),
        epochs=_number(settings, "epochs"),
        select="",
        validation_last=None,
        validation_best=None,
        best_epoch=None,
        test=None,
        teacher_validation=None,
        teacher_test=None,
        student_parameters=0,
        teacher_parameters=None,
        seconds=0.0,
        peak_memory_mb=0.0,
        device="",
        processes=1,
    )


def _number(settings: Mapping[str, Any], setting: str) -> int:
    value = settings.get(setting)
    return value if isinstance(value, int) else 0


def _whole(objective: str) -> str:
    """The expression as results have it; the text itself where it names what only a plugin knows."""
    try:
        return str(parse_objective(presets().get(objective.strip().lower(), objective)))
    except LimbeckError:
        return objective

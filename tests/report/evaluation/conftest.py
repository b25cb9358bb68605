"""Evaluations made by hand, as the report reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import make_record

from limbeck.evaluate.record import Evaluation, read_evaluation

Make = Callable[..., Evaluation]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a value as an evaluation.json."""

    def to_file(value: Any) -> Path:
        path = tmp_path / "evaluation.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def make(write: Callable[[Any], Path]) -> Make:
    """Makes an evaluation, with what is given in the place of its own keys, and reads it."""

    def evaluation(**changes: Any) -> Evaluation:
        shape = {name: changes.pop(name) for name in ("students", "classes", "teacher") if name in changes}
        return read_evaluation(write(make_record(**shape) | changes))

    return evaluation

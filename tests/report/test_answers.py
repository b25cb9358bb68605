"""What models answered is shown side by side, as it is in the runs' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.report.answers import answers_section
from limbeck.report.material import gather

from .conftest import make_result, write_run


def _write(folder: Path, objective: str, seed: int, answers: Any) -> None:
    path = write_run(folder, make_result(objective, seed, 0.7))
    (path / "answers.json").write_text(answers if isinstance(answers, str) else json.dumps(answers))


def _answer(number: int, given: str, **more: str) -> dict[str, Any]:
    return {"index": number, "prompt": f"{number}+1=", "wanted": str(number + 1), "student": given, **more}


def test_the_first_prompts_stand_beside_each_other(tmp_path: Path) -> None:
    _write(tmp_path / "a0", "ce()", 0, [_answer(n, f"a{n}", teacher=f"<t{n}>") for n in range(20)])
    _write(tmp_path / "a1", "ce()", 1, [_answer(n, "another seed's") for n in range(20)])
    _write(tmp_path / "b0", "kl()", 0, [_answer(n, f"b{n}") for n in range(20)])
    (section,) = answers_section(gather([tmp_path]))
    shown = [section.html.count(f">{part}<") for part in ("a0", "b0", "&lt;t0&gt;", "7+1=", "8+1=")]
    assert shown == [1, 1, 1, 1, 0]
    assert "another seed" not in section.html


@pytest.mark.parametrize("content", ["", "{}", '[{"prompt": 3}]', "[1, 2]"])
def test_files_of_others_are_passed_over(tmp_path: Path, content: str) -> None:
    _write(tmp_path / "a0", "ce()", 0, content)
    assert answers_section(gather([tmp_path])) == []

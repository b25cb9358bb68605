"""``limbeck report`` on runs that are finished, unfinished, failed and damaged, and on an evaluation by its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.conftest import UNFINISHED, make_result, write_evaluation, write_run

from .conftest import Run


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "icd", make_result("ce() + icd()", 0, 0.7))
    write_run(tmp_path / "runs" / "kd", None, settings=UNFINISHED | {"objective": "kd"})
    failed = write_run(tmp_path / "runs" / "failed", None)
    (failed / "failure.json").write_text('{"reason": "the loss became NaN."}')
    (write_run(tmp_path / "runs" / "damaged", None) / "result.json").write_text("{")
    write_evaluation(tmp_path / "mine.json")
    return tmp_path


def test_report_tells_what_it_found(limbeck: Run, mixed: Path) -> None:
    said = limbeck("report", "runs", "mine.json", "--output", "page.html", "--figures", "figures", "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert [row["label"] for row in value["rows"]] == ["teacher big", "icd"]
    assert value["unfinished"] == {"kd": "step 30, epoch 3 of 10, validation accuracy 60.00%"}
    assert value["failed"] == {"failed": "the loss became NaN."}
    assert list(value["skipped"]) == [str(Path("runs") / "damaged")]
    assert value["evaluations"] == ["mine.json"]
    written = {Path(path) for path in value["figures"]}
    assert written == {path.relative_to(mixed) for path in (mixed / "figures").iterdir()}
    assert {path.suffix for path in written} == {".svg", ".pdf", ".md"}


def test_report_says_how_much_could_not_be_read(limbeck: Run, mixed: Path) -> None:
    said = limbeck("report", "runs", "--output", "page.html")
    words = " ".join(said.out.split())
    assert "1 could not be read and are named there" in words
    assert "figures" not in words
    (mixed / "taken").write_text("")
    refused = limbeck("report", "runs", "--output", "page.html", "--figures", "taken")
    assert refused.code == 2
    assert "the figures cannot be written to" in refused.err


def test_report_of_unfinished_runs_alone_has_no_empty_table(
    limbeck: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "kd", None, settings=UNFINISHED)
    said = limbeck("report", "runs", "--output", "page.html")
    assert said.code == 0, said.err
    assert "There is no finished run yet" in said.out
    assert "sample standard" not in said.out

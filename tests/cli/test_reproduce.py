"""``limbeck reproduce``: tables, cells, commands and runs, as a user would call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import DistillSettings
from limbeck.runs import Result

from .conftest import Run, finish, no_traceback, subprocess_of

TABLE = "distillers_v2_cifar100_same"
CELL = ("reproduce", TABLE, "--method", "icd", "--pair", "resnet32x4/resnet8x4")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(folder: Path, accuracy: float, seed: int, epochs: int = 240) -> None:
    settings = {"data": "cifar100", "teacher": "runs/t", "student": "resnet8x4", "objective": "icd_paper", "seed": seed}
    own = {**settings, "val_fraction": 0, "select": "last", "epochs": epochs}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(DistillSettings.make(own).dump())
    values: dict[str, Any] = dict.fromkeys(("validation_last", "validation_best", "best_epoch", "teacher_validation"))
    values |= {"student": "resnet8x4", "teacher": "resnet32x4", "data": "cifar100", "seed": seed, "epochs": epochs}
    values |= {"objective": "ce() + icd(variant='paper')", "select": "last", "test": {"accuracy": accuracy}}
    values |= {"teacher_test": {"accuracy": 0.79}, "student_parameters": 1, "teacher_parameters": 2, "seconds": 1.0}
    result = Result(**values, peak_memory_mb=1.0, device="cpu", processes=1)
    (folder / "result.json").write_text(json.dumps(result.as_dict()))


def test_the_overview_is_quick_and_complete(here: Path) -> None:
    said = finish(subprocess_of("reproduce", "--json", cwd=here))
    assert said.code == 0
    rows = {row["id"]: row for row in json.loads(said.out)["tables"]}
    assert rows[TABLE]["numbers"] == rows[TABLE]["commands"] == 139
    assert rows[TABLE]["measured"] == 0
    assert rows["NOT_RECOVERED_rrd_ablation"]["numbers"] == 0
    assert "no folder runs or results" in said.err


def test_the_overview_for_readers(limbeck: Run, here: Path) -> None:
    said = limbeck("reproduce")
    assert said.code == 0
    assert TABLE in said.out
    assert "not recovered" in said.out
    assert max(map(len, said.out.splitlines())) <= 100


@pytest.mark.parametrize("columns", ["60", "160"])
def test_a_table_fits_where_it_is_shown(
    limbeck: Run, here: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    said = limbeck("reproduce", "lskd_cifar100_same")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= int(columns)
    assert "76.62" in said.out
    assert "CTKD is not in limbeck" in " ".join(said.out.split())


def test_a_cell_has_its_commands_source_and_notes(limbeck: Run, here: Path) -> None:
    said = limbeck(*CELL)
    assert said.code == 0
    for text in (
        "74.23",
        "giakoumoglou/distillers",
        "limbeck train",
        "limbeck distill",
        "icd_paper",
        "--milestones 150 180 210",
    ):
        assert text in said.out
    assert said.out.index("limbeck train") < said.out.index("limbeck distill")


def test_runs_stand_beside_what_was_published(limbeck: Run, here: Path) -> None:
    _run(here / "runs" / "a", 0.74, 0)
    _run(here / "runs" / "b", 0.76, 1)
    _run(here / "elsewhere" / "short", 0.5, 2, epochs=30)
    (here / "elsewhere" / "broken").mkdir()
    (here / "elsewhere" / "broken" / "result.json").write_text("{")
    said = limbeck(*CELL, "--runs", "runs", "--runs", "elsewhere", "--json")
    value = json.loads(said.out)
    measured = value["cells"][0]["measured"]
    assert measured["figure"]["mean"] == pytest.approx(75.0)
    assert measured["figure"]["count"] == 2
    assert measured["difference"] == pytest.approx(75 - 74.23)
    assert list(measured["other"]) == [str(Path("elsewhere/short"))]
    assert "epochs 30, not 240" in measured["other"][str(Path("elsewhere/short"))]
    assert list(value["runs"]["skipped"]) == [str(Path("elsewhere/broken"))]
    assert "skipped elsewhere/broken" in said.err
    assert "75.00 ± 1.41 (n=2)" in limbeck(*CELL).out
    shown = limbeck("reproduce", TABLE, "--runs", "runs", "--runs", "elsewhere")
    assert "epochs 30, not 240" in shown.out
    rows = {row["id"]: row for row in json.loads(limbeck("reproduce", "--json").out)["tables"]}
    assert rows[TABLE]["measured"] == 1


def test_names_may_be_limbecks_or_the_papers(limbeck: Run, here: Path) -> None:
    ours = limbeck("reproduce", "--method", "icd_paper+kd", "--student", "mobilenetv2_half", "--json")
    theirs = limbeck("reproduce", "--method", "ICD + KD", "--student", "MobileNetV2", "--json")
    cells = json.loads(ours.out)["cells"]
    assert cells == json.loads(theirs.out)["cells"]
    assert {cell["method"] for cell in cells} == {"ICD+KD", "DCD+KD"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("distillers_v2_cifar100_sam",), "did you mean 'distillers_v2_cifar100_same'?"),
        ((TABLE, "--method", "fitnets"), "did you mean 'FitNet'?"),
        ((TABLE, "--student", "resnet8x"), "did you mean 'resnet8x4'?"),
        ((TABLE, "--pair", "resnet56"), "Write it as TEACHER/STUDENT."),
        ((TABLE, "--pair", "resnet56/vgg8"), "there is no such pair"),
        ((TABLE, "--pair", "resnet56/resnet20", "--student", "vgg8"), "give one of them"),
    ],
)
def test_a_wrong_name_gets_the_nearest(limbeck: Run, here: Path, words: tuple[str, ...], says: str) -> None:
    said = limbeck("reproduce", *words)
    assert said.code == 2
    assert says in " ".join(no_traceback(said))


def test_unverified_figures_are_marked_in_a_list_of_many(limbeck: Run, here: Path) -> None:
    words = " ".join(limbeck("reproduce", "--method", "SKD").out.split())
    assert "in a transcription, each task's own (%) (secondary notes, unverified)" in words
    assert "relative gain (%) (secondary" not in words

"""What a report is made of: unfinished runs beside finished ones, evaluations, and files that are damaged in every way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import SettingError
from limbeck.evaluate.record import SCHEMA
from limbeck.report.material import gather
from limbeck.report.method_plates import accuracy_section, losses_section
from limbeck.report.read import find_evaluations, find_runs
from limbeck.report.tables_html import methods_section

from .conftest import UNFINISHED, make_evaluation, make_result, write_evaluation, write_run


def _comparison(folder: Path) -> Path:
    """Two finished seeds and one that goes on, of two methods; all of a third go on."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("objectives: [icd]\nseeds: 3\n")
    alone = {key: value for key, value in UNFINISHED.items() if key not in ("teacher", "student", "objective")}
    for seed in range(3):
        finished = seed < 2
        result = make_result("ce()", seed, 0.6 + seed / 100, teacher=None, epochs=10) if finished else None
        write_run(folder / f"alone-seed{seed}", result, settings=alone | {"model": "small", "seed": seed})
        result = make_result("ce() + icd()", seed, 0.7 + seed / 100, epochs=10) if finished else None
        write_run(folder / f"icd-seed{seed}", result, settings=UNFINISHED | {"seed": seed})
        settings = UNFINISHED | {"seed": seed, "objective": "kd"}
        write_run(folder / f"kd-seed{seed}", None, settings=settings, epochs=2 + seed)
    return folder


# Unfinished runs


def test_unfinished_runs_are_rows_of_their_own_and_in_no_mean(tmp_path: Path) -> None:
    material = gather([_comparison(tmp_path / "many")])
    assert [row.label for row in material.rows] == ["teacher big", "student alone", "icd"]
    icd = material.rows[-1]
    assert icd.test is not None
    assert (icd.seeds, icd.test.count, icd.test.mean) == ((0, 1), 2, pytest.approx(0.705))
    going = {method.row.label: method.row for method in material.unfinished}
    assert list(going) == [
        "student alone (unfinished: epoch 3 of 10)",
        "icd (unfinished: epoch 3 of 10)",
        "kd (unfinished: epoch 2 to 4 of 10)",
    ]
    for row in going.values():
        assert (row.test, row.validation_last, row.difference, row.baseline) == (None, None, None, False)
    kd = going["kd (unfinished: epoch 2 to 4 of 10)"]
    assert kd.seeds == (0, 1, 2)
    assert kd.validation_best is not None
    assert kd.validation_best.mean == pytest.approx((0.4 + 0.6 + 0.8) / 3)


def test_unfinished_runs_are_drawn_and_marked(tmp_path: Path) -> None:
    material = gather([_comparison(tmp_path / "many")])
    (accuracy,) = accuracy_section(material)
    validation, tests, _ = accuracy.plates
    assert "kd (unfinished: epoch 2 to 4 of 10) is at 40.0 %" in validation.alternative
    assert "icd ends at 60.0 %" in validation.alternative
    names = [name for name, _ in validation.legend]
    assert names[:2] == ["student alone", "icd"]
    assert all("unfinished" in name for name in names[2:])
    assert "unfinished" not in tests.alternative
    (losses,) = losses_section(material)
    assert [plate.title for plate in losses.plates][-1] == "kd (unfinished: epoch 2 to 4 of 10)"
    (table,) = methods_section(material)
    assert table.html.count('<tr class="unfinished">') == 3
    assert "their figure is the best validation so far" in table.html


def test_a_comparison_in_mid_course_has_a_table(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "many")
    for path in folder.glob("*/result.json"):
        path.unlink()
    material = gather([folder])
    assert material.rows == []
    (table,) = methods_section(material)
    assert "student alone (unfinished: epoch 3 of 10)" in table.html


def test_a_run_that_logged_nothing_or_tells_nothing_is_no_row(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "silent", None, settings=UNFINISHED, epochs=0)
    write_run(tmp_path / "runs" / "unknown", None)
    write_run(tmp_path / "runs" / "odd", None, settings={"student": ["x"], "data": 3, "seed": "a", "epochs": "b"})
    material = gather([tmp_path / "runs"])
    assert material.methods == []
    assert sum(run.is_unfinished for run in material.runs) == 3


def test_an_objective_of_a_plugin_that_is_not_loaded_keeps_its_text(tmp_path: Path) -> None:
    write_run(tmp_path / "run", None, settings=UNFINISHED | {"objective": "ce + half_mse()"})
    (method,) = gather([tmp_path / "run"]).methods
    assert method.row.label == "ce + half_mse (unfinished: epoch 3 of 10)"


# Damage

_RESULT = make_result("kd()", 0, 0.5).as_dict()
_LINE = {"split": "validation", "step": 1, "epoch": 1.0, "accuracy": 0.5}
_WRONG_RESULTS: dict[str, Any] = {
    "not JSON": "{",
    "empty": "",
    "deep": "[" * 100_000,
    "a list": [],
    "a text": _RESULT | {"seconds": "long"},
    "NaN": _RESULT | {"validation_best": float("nan")},
    "infinite seconds": _RESULT | {"seconds": float("inf")},
    "percent": _RESULT | {"test": {"accuracy": 50.0}},
    "no accuracy": _RESULT | {"test": {"count": 3}},
    "a teacher without": _RESULT | {"teacher_test": {}},
    "no parameters": _RESULT | {"student_parameters": 0},
}
_WRONG_METRICS: dict[str, Any] = {
    "a list": [],
    "no epoch": {"split": "train", "step": 1},
    "text": _LINE | {"accuracy": "high"},
    "flag": _LINE | {"step": True},
    "NaN": _LINE | {"accuracy": float("nan")},
    "missing": {key: value for key, value in _LINE.items() if key != "accuracy"},
    "infinite": _LINE | {"epoch": float("inf")},
    "nothing": _LINE | {"step": None},
    "nested": {"split": "train", "step": 1, "epoch": 1.0, "loss": {"a": 1}},
}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_damaged_results_are_named_skipped_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for name, value in _WRONG_RESULTS.items():
        (write_run(folder / name, None) / "result.json").write_text(_text(value))
    (write_run(folder / "binary", None) / "result.json").write_bytes(b"\xff\xfe\x00")
    (write_run(folder / "folder", None) / "result.json").mkdir()
    _are_skipped(folder, [*_WRONG_RESULTS, "binary", "folder"], "result.json")


def test_damaged_metrics_are_named_skipped_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for number, (name, value) in enumerate(_WRONG_METRICS.items()):
        finished = make_result("kd()", number, 0.5) if number % 2 else None
        (write_run(folder / name, finished) / "metrics.jsonl").write_text(_text(value) + "\n")
    run = write_run(folder / "folder", None)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    _are_skipped(folder, [*_WRONG_METRICS, "folder"], "metrics.jsonl")


def _are_skipped(folder: Path, names: list[str], file: str) -> None:
    write_run(folder / "whole", make_result("icd()", 0, 0.5))
    material = gather([folder])
    assert [row.label for row in material.rows if not row.is_teacher] == ["icd()"]
    assert {path.name for path, _ in material.skipped} == set(names)
    assert all(problem.startswith(file) for _, problem in material.skipped)


def test_damaged_settings_make_no_run_unreadable(tmp_path: Path) -> None:
    for number, text in enumerate(("a: [", "3", "? [1, 2]\n: 3", "1: 2\nnull: 3", "\x00")):
        run = write_run(tmp_path / "runs" / str(number), make_result("kd()", number, 0.5))
        (run / "config.yaml").write_text(text)
    folder = write_run(tmp_path / "runs" / "folder", make_result("kd()", 9, 0.5))
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()
    material = gather([tmp_path / "runs"])
    assert material.skipped == []
    # Settings that do not fit make it another method, and no more than that.
    assert sorted(seed for row in material.rows for seed in row.seeds) == [0, 1, 2, 3, 4, 9]


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_result("kd()", 0, 0.5))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[2]["icd.contrast"] = float("nan")
    lines[4]["icd.contrast"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (section,) = losses_section(gather([run]))
    assert "icd.contrast from 1 to 1." in section.plates[0].alternative


# Evaluations


def test_evaluations_are_found_in_runs_comparisons_and_folders(tmp_path: Path) -> None:
    comparison = _comparison(tmp_path / "runs" / "many")
    run = write_run(tmp_path / "runs" / "one", make_result("kd()", 0, 0.5))
    beside = tmp_path / "elsewhere" / "mine.json"
    places = [tmp_path / "runs", comparison, comparison / "icd-seed0", run, tmp_path / "runs" / "only"]
    found = [write_evaluation(place / "evaluation.json") for place in places]
    write_evaluation(beside)
    paths = [tmp_path / "runs", beside, run]
    assert set(find_evaluations(paths, find_runs(paths))) == {*found, beside}
    assert beside not in find_runs(paths)
    # A run of a comparison does not bring in what was said of the others.
    members = [comparison / "icd-seed0", comparison / "kd-seed0"]
    assert find_evaluations(members, find_runs(members)) == [found[2]]


def test_an_evaluation_needs_no_run(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path / "evaluation.json")
    for given in (path, tmp_path):
        material = gather([given])
        assert ([*material.runs], [*material.skipped]) == ([], [])
        assert [record.data for record in material.records] == ["digits"]


def test_damaged_evaluations_are_named_skipped_and_counted(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "whole", make_result("kd()", 0, 0.5))
    damages: list[Callable[[Path], Any]] = [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_text(""),
        lambda path: path.mkdir(),
        lambda path: path.write_text(json.dumps(make_evaluation(schema=1))),
        lambda path: path.write_text(json.dumps(make_evaluation(networks=3))),
        lambda path: path.write_text("[" * 100_000),
    ]
    for number, damage in enumerate(damages):
        path = tmp_path / "runs" / str(number) / "evaluation.json"
        path.parent.mkdir()
        damage(path)
    material = gather([tmp_path / "runs"])
    assert (len(material.skipped), material.evaluations) == (len(damages), [])
    said = dict(material.skipped)[tmp_path / "runs" / "4" / "evaluation.json"]
    assert "schema 1" in said
    assert f"schema {SCHEMA} are read" in said
    shutil.rmtree(tmp_path / "runs" / "whole")
    with pytest.raises(SettingError, match="there is no run to report on"):
        gather([tmp_path / "runs"])

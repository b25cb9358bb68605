"""Heat maps of learned attention: what the objectives log is found, averaged over seeds, told in words and drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.report.attention import attention_section
from limbeck.report.material import gather
from limbeck.report.plate_html import figure_html
from limbeck.report.plates import Palette, Plate
from limbeck.testing import built, sample_batch, sample_signals

from .conftest import make_result, write_run

_PALETTE = Palette("black", "grey", ("red", "green"))
Weights = list[list[float]]


def _keys(objective: str, weights: Weights, students: str = "ab", teachers: str = "xyz") -> dict[str, float]:
    return {
        f"{objective}.attention.stages/{students[s]}.teacher:{teachers[t]}": value
        for s, row in enumerate(weights)
        for t, value in enumerate(row)
    }


def _write(
    folder: Path, seed: int, change: Callable[[dict[str, Any]], object], objective: str = "ce() + afd()"
) -> None:
    """A run whose training records ``change`` fills."""
    path = write_run(folder, make_result(objective, seed, 0.7)) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["split"] == "train":
            change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _learned(objective: str, weights: Weights) -> Callable[[dict[str, Any]], object]:
    """Weights that stand in the last epoch's record alone; those before are other ones."""
    return lambda record: record.update(
        _keys(objective, weights if record["epoch"] == 3 else [[0.9] * len(row) for row in weights])
    )


def _plates(folder: Path) -> tuple[Plate, ...]:
    (section,) = attention_section(gather([folder]))
    return section.plates


def _drawn(plate: Plate) -> Any:
    figure = plate.draw(_PALETTE)
    return figure.axes[0]


def test_the_last_epochs_weights_are_averaged_over_the_seeds(tmp_path: Path) -> None:
    _write(tmp_path / "0", 0, _learned("afd", [[0.2, 0.5, 0.75], [0.8, 0.5, 0.25]]))
    _write(tmp_path / "1", 1, _learned("afd", [[0.4, 0.5, 0.25], [0.6, 0.5, 0.75]]))
    (plate,) = _plates(tmp_path)
    axes = _drawn(plate)
    assert axes.images[0].get_array().tolist() == [pytest.approx([0.3, 0.5, 0.5]), pytest.approx([0.7, 0.5, 0.5])]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stages.a", "stages.b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["teacher:x", "teacher:y", "teacher:z"]
    assert [text.get_text() for text in axes.texts] == ["0.30", "0.50", "0.50", "0.70", "0.50", "0.50"]
    assert plate.caption == "small on digits, mean of 2 runs, epoch 3; each column sums to 1"
    told = "The student's stages.a with the teacher's teacher:y 0.50, teacher:z 0.50, teacher:x 0.30"
    assert told in plate.alternative
    assert "The student's stages.b with the teacher's teacher:x 0.70" in plate.alternative
    assert plate.alternative in figure_html(plate, 0).replace("&#x27;", "'")


def test_each_row_sums_to_one_where_the_student_chooses(tmp_path: Path) -> None:
    _write(tmp_path / "0", 0, _learned("rtk", [[0.4, 0.6, 0.0], [0.0, 0.25, 0.75]]))
    (plate,) = _plates(tmp_path)
    assert plate.caption == "small on digits, one run, epoch 3; each row sums to 1"
    assert plate.title.endswith(": rtk")


def test_each_method_and_each_objective_of_it_has_a_figure(tmp_path: Path) -> None:
    def both(record: dict[str, Any]) -> None:
        record.update(_keys("afd1", [[1.0, 0.5]]) | _keys("afd2", [[0.25, 0.5]]))

    _write(tmp_path / "0", 0, both)
    _write(tmp_path / "1", 0, _learned("rtk", [[0.5, 0.5]]), "ce() + rtk()")
    write_run(tmp_path / "2", make_result("ce() + icd()", 0, 0.9))
    plates = _plates(tmp_path)
    assert len({plate.name for plate in plates}) == 3
    assert sorted(plate.title.split(": ")[-1] for plate in plates) == ["afd1", "afd2", "rtk"]


def test_without_learned_attention_there_is_no_section(runs: Path) -> None:
    assert attention_section(gather([runs])) == []


def test_an_unfinished_run_is_drawn_as_far_as_it_is(tmp_path: Path) -> None:
    settings = {"data": "digits", "teacher": "big@t.safetensors", "student": "small", "objective": "icd", "epochs": 10}
    path = write_run(tmp_path / "0", None, settings=settings, epochs=2) / "metrics.jsonl"
    position = {"split": "train", "step": 21, "stage": 0, "epoch": 2.1, "seconds": 3.0, "loss": 1.0}
    with path.open("a") as file:
        file.write(json.dumps(position | _keys("afd", [[0.5, 1.0]])) + "\n")
    (plate,) = _plates(tmp_path)
    assert "unfinished" in plate.title
    assert "epoch 2.1" in plate.caption


@pytest.mark.parametrize("value", [None, float("nan")])
def test_weights_that_are_no_numbers_leave_those_before(tmp_path: Path, value: float | None) -> None:
    def change(record: dict[str, Any]) -> None:
        record.update(_keys("afd", [[0.25 if record["epoch"] < 3 else value, 0.75]]))  # type: ignore[list-item]

    _write(tmp_path / "0", 0, change)
    (plate,) = _plates(tmp_path)
    assert "epoch 2;" in plate.caption
    assert _drawn(plate).images[0].get_array().tolist() == [[0.25, 0.75]]


def test_runs_with_other_stages_are_no_part_of_the_mean_and_half_a_table_is_no_figure(tmp_path: Path) -> None:
    _write(tmp_path / "0", 0, _learned("afd", [[0.5, 1.0]]))
    _write(tmp_path / "1", 1, _learned("afd", [[0.1, 0.1, 0.1]]))

    def cut(record: dict[str, Any]) -> None:
        record.update(dict(list(_keys("afd", [[0.5, 0.5], [0.5, 0.5]]).items())[:3]))

    _write(tmp_path / "2", 0, cut, "ce() + 2*afd()")
    (plate,) = _plates(tmp_path)
    assert "one run" in plate.caption
    assert _drawn(plate).images[0].get_array().tolist() == [[0.5, 1.0]]


def test_names_from_outside_are_shown_as_they_are_and_run_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "0", 0, lambda record: record.update({"afd.attention.<b>$x^2$.<script>": 1.0}))
    (plate,) = _plates(tmp_path)
    drawn = figure_html(plate, 0)
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "&lt;b&gt;$x^2$" in drawn


def test_many_stages_are_coloured_without_numbers_and_told_by_their_largest(tmp_path: Path) -> None:
    weights = [[(s + t) / 40 for t in range(18)] for s in range(6)]
    letters = "abcdefghijklmnopqr"
    _write(tmp_path / "0", 0, lambda record: record.update(_keys("afd", weights, letters, letters)))
    (plate,) = _plates(tmp_path)
    assert plate.wide
    assert not _drawn(plate).texts
    assert "teacher:r 0.42, teacher:q 0.40, teacher:p 0.38 and 15 less" in plate.alternative


def test_what_the_objectives_log_is_drawn(tmp_path: Path) -> None:
    objective = built("ce + 200*rtk(dim=8) + afd(dim=8)")
    objective(sample_signals(1), sample_signals(2, maps={"stage1": (6, 8), "stage2": (8, 4)}), sample_batch())
    logged = {name: value.item() for name, value in objective.monitors().items()}
    _write(tmp_path / "0", 0, lambda record: record.update(logged))
    rtk, afd = _plates(tmp_path)
    for plate in (rtk, afd):
        axes = _drawn(plate)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["stage1", "stage2"]
        assert axes.images[0].get_array().tolist()[1][0] == logged[f"{plate.title[-3:]}.attention.stage2.stage1"]
    assert rtk.caption.endswith("each row sums to 1")
    assert afd.caption.endswith("each column sums to 1")

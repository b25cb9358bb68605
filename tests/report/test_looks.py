"""One method has one colour on the whole page, and no two networks of an evaluation look the same."""

from __future__ import annotations

from pathlib import Path

from limbeck.evaluate.record import read_evaluation
from limbeck.report.looks import method_numbers, network_numbers
from limbeck.report.material import gather
from limbeck.report.page import make_report
from limbeck.report.plates import dashes, marker

from .conftest import make_evaluation, make_result, write_evaluation, write_run


def _runs(folder: Path) -> Path:
    for seed in (0, 1):
        write_run(folder / f"alone-{seed}", make_result("ce()", seed, 0.6, teacher=None))
        write_run(folder / f"kd-{seed}", make_result("0.1*ce() + 0.9*kd()", seed, 0.7))
        write_run(folder / f"icd-{seed}", make_result("ce() + icd()", seed, 0.75))
    values = make_evaluation()
    student = values["networks"].pop("icd-seed0")
    for who, method in (("icd-seed0", "icd"), ("icd-seed1", "icd"), ("mine", None), ("alone", "student alone")):
        values["networks"][who] = student | {"method": method}
        values["cost"]["networks"][who] = values["cost"]["networks"]["icd-seed0"]
    write_evaluation(folder / "evaluation.json", values)
    return folder


def test_a_method_has_its_number_in_every_section(tmp_path: Path) -> None:
    report = make_report([_runs(tmp_path / "runs")], tmp_path / "report.html")
    material = report.material
    assert 0 not in material.numbers.values()
    plates = {plate.name: plate for section in report.sections for plate in section.plates}
    by_method = dict(plates["validation0"].legend)
    assert by_method == {label: material.numbers[label] for label in by_method}
    found = network_numbers(material.records[0], material.numbers)
    assert found["teacher"] == 0
    assert found["icd-seed0"] == by_method["icd"]
    assert found["alone"] == by_method["student alone"]
    assert len(set(found.values())) == len(found)
    # The second seed has its method's colour, and dashes and a marker of its own.
    one, other = found["icd-seed0"], found["icd-seed1"]
    assert one % 6 == other % 6
    assert dashes(one) != dashes(other)
    assert marker(one) != marker(other)
    assert found["mine"] > max(material.numbers.values())


def test_methods_of_an_evaluation_alone(tmp_path: Path) -> None:
    evaluation = read_evaluation(_runs(tmp_path / "runs") / "evaluation.json")
    assert method_numbers(["kd", "icd · lr=0.1", "icd · lr=0.2"], [evaluation]) == {
        "kd": 1,
        "icd · lr=0.1": 2,
        "icd · lr=0.2": 3,
        "icd": 2,
        "student alone": 4,
    }
    assert gather([tmp_path / "runs" / "evaluation.json"]).numbers == {"icd": 1, "student alone": 2}

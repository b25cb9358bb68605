"""Figures of methods: what they tell in words, few methods and many, with costs and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.report.material import Material, gather
from limbeck.report.method_plates import accuracy_section
from limbeck.report.page import make_report
from limbeck.report.plate_html import figure_html
from limbeck.report.plates import Plate

from .conftest import make_evaluation, make_result, write_evaluation, write_run

_MANY = [f"ce() + {weight}*icd()" for weight in range(2, 14)]


def _plates(material: Material) -> dict[str, Plate]:
    (section,) = accuracy_section(material)
    return {plate.title: plate for plate in section.plates}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twelve methods and the student alone, over two seeds."""
    for seed in range(2):
        write_run(tmp_path / f"alone-{seed}", make_result("ce()", seed, 0.5, teacher=None))
        for number, objective in enumerate(_MANY):
            write_run(tmp_path / f"{number}-{seed}", make_result(objective, seed, 0.6 + number / 100))
    return tmp_path


def test_many_methods_have_a_panel_each_and_the_best_stands_out(many: Path) -> None:
    plates = _plates(gather([many]))
    validation = plates["Validation accuracy"]
    assert validation.wide
    assert list(validation.legend) == [("the panel's method", 0), ("student alone", 1)]
    for weight in range(2, 14):
        assert f"ce + {weight}*icd ends at 60.0 %" in validation.alternative
    drawn = figure_html(validation, 0)
    assert all(f">ce + {weight}*icd<" in drawn for weight in range(2, 14))
    assert 'tabindex="0"' in drawn  # it scrolls by itself where there is no room
    cost = plates["Accuracy against cost"]
    assert sorted(cost.legend) == [("ce + 13*icd", 0), ("student alone", 1)]
    assert "the other 11 methods in grey" in cost.caption
    assert "ce + 5*icd: 63.0 % at 1,000" in cost.alternative


@pytest.mark.parametrize(("figure", "words"), [("ndcg_10", "nDCG@10"), ("exact_match", "exact match")])
def test_what_differences_are_made_of_is_drawn(figure: str, words: str, tmp_path: Path) -> None:
    for number, objective in enumerate(("embed_distill", "kl()")):
        test = {"count": 100, "accuracy": 0.9, "top5": 1.0, "nll": 1.0, "agreement": 0.5, figure: 0.25 + number / 4}
        write_run(tmp_path / str(number), make_result(objective, 0, 0.9, test=test))
    told = _plates(gather([tmp_path]))[f"Test {words}"].alternative
    assert told.startswith(f"Test {words} of every run, small on digits.")
    assert "embed_distill: 25.0 %" in told
    assert "kl: 50.0 %" in told


def test_few_methods_share_a_figure(runs: Path) -> None:
    plates = _plates(gather([runs]))
    assert not plates["Validation accuracy"].wide
    assert [name for name, _ in plates["Validation accuracy"].legend] == ["student alone", "icd+kd", "icd"]
    # Colours, and dashes or markers: three of one would not be told apart without colour.
    assert len({number for _, number in plates["Accuracy against cost"].legend}) == 3


def test_cost_is_operations_where_all_were_counted(runs: Path) -> None:
    write_evaluation(runs / "evaluation.json")
    told = _plates(gather([runs]))["Accuracy against cost"].alternative
    assert told.startswith("Test accuracy against multiply-accumulates, digits.")
    assert "icd: 71.0 % at 10,000" in told
    assert "teacher big: 80.0 % at 60,000" in told
    write_run(runs / "larger", make_result("ce() + icd()", 0, 0.75, student="middle", student_parameters=25_000))
    told = _plates(gather([runs]))["Accuracy against cost"].alternative
    assert told.startswith("Test accuracy against parameters, digits.")


def test_evaluations_that_differ_on_a_cost_are_not_believed(runs: Path) -> None:
    other = make_evaluation()
    other["cost"]["networks"]["icd-seed0"]["macs"] = 11_000
    write_evaluation(runs / "evaluation.json")
    write_evaluation(runs / "icd-0" / "evaluation.json", other)
    assert "against parameters" in _plates(gather([runs]))["Accuracy against cost"].alternative


def test_one_size_alone_is_no_figure_of_cost(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / str(seed), make_result("ce()", seed, 0.5, teacher=None))
    assert list(_plates(gather([tmp_path]))) == ["Validation accuracy"]


def test_accuracy_against_cost_stands_once(runs: Path) -> None:
    write_evaluation(runs / "evaluation.json")

    def names() -> list[str]:
        page = make_report([runs], runs / "report.html")
        return [
            plate.name
            for section in page.sections
            for plate in section.plates
            if plate.title == "Accuracy against cost"
        ]

    assert names() == ["cost0"]
    foreign = make_evaluation()
    foreign["networks"]["icd-seed0"] |= {"model": "foreign"}
    write_evaluation(runs / "evaluation.json", foreign)
    assert names() == ["cost0", "evaluation-cost-accuracy"]
    write_evaluation(runs / "evaluation.json")
    # The runs' figure is against parameters now.
    write_run(runs / "larger", make_result("ce() + icd()", 0, 0.75, student="middle", student_parameters=25_000))
    assert names() == ["cost0", "evaluation-cost-accuracy"]


def test_the_teacher_in_a_figure_is_the_one_that_taught(tmp_path: Path) -> None:
    own = {"student": "middle", "teacher": "other", "teacher_test": {"count": 100, "accuracy": 0.9}}
    for number, objective in enumerate(("kd()", "ce() + icd()")):
        write_run(tmp_path / f"small-{number}", make_result(objective, 0, 0.7))
        write_run(tmp_path / f"middle-{number}", make_result(objective, 0, 0.8, **own))

    def told() -> dict[str, str]:
        (section,) = accuracy_section(gather([tmp_path]))
        return {plate.caption.split(" on ")[0]: plate.alternative for plate in section.plates if "test" in plate.name}

    assert told()["small"].endswith("Teacher: 80.0 %.")
    assert told()["middle"].endswith("Teacher: 90.0 %.")
    write_run(tmp_path / "both", make_result("kd()", 0, 0.8, **own | {"student": "small"}))
    assert "Teacher" not in told()["small"]

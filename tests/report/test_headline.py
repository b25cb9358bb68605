"""The sentence at the top of the page says no more than was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.report.costs import share
from limbeck.report.headline import headline
from limbeck.report.rows import summarise

from .conftest import make_evaluation, make_result, write_evaluation


def test_the_headline_keeps_to_what_was_measured() -> None:
    results = [make_result("ce()", seed, 0.6 + seed / 100, teacher=None) for seed in range(2)]
    results += [make_result("ce() + icd()", seed, 0.76 + seed / 50) for seed in range(2)]
    main, sure = headline(summarise(results))
    assert main == "icd keeps 96 % of the teacher's accuracy at 1/200 of its parameters"
    assert "77.00 ± 1.41 %" in sure
    # 0.5 points of standard error, times Student's t of 12.706 at one degree of freedom.
    assert "student alone: +16.50 ± 0.71 points, paired over 2 seeds, 95 % interval +10.15 to +22.85: better." in sure
    assert "with 2 pairs an interval is wide, 9.0 standard deviations" in sure


@pytest.mark.parametrize(("accuracy", "share"), [(0.797, "99.6 %"), (0.8, "100 %"), (0.82, "102 %")])
def test_the_headline_does_not_round_up_to_the_whole(accuracy: float, share: str) -> None:
    main, sure = headline(summarise([make_result("kd()", 0, accuracy, teacher_parameters=3_000)]))
    assert main == f"kd() keeps {share} of the teacher's accuracy at 33 % of its parameters"
    assert "one seed, so without an error bar" in sure


def test_the_headline_without_a_teacher_or_a_test() -> None:
    main, _ = headline(summarise([make_result("ce()", 0, 0.6, teacher=None)]))
    assert main == "student alone reaches 60.0 % test accuracy on digits"
    main, _ = headline(summarise([make_result("ce()", 0, 0.6, teacher=None, test=None)]))
    assert main == "student alone reaches 59.0 % validation accuracy on digits"
    assert headline([]) == ("No finished run has an accuracy yet", "")


def test_the_headline_names_the_figure_that_it_tells() -> None:
    searched = {"accuracy": 0.9, "ndcg_10": 0.4}
    taught = make_result("kl()", 0, 0.9, test=searched, teacher_test={"accuracy": 0.9, "ndcg_10": 0.5})
    main, sure = headline(summarise([taught, make_result("ce()", 0, 0.9, test=searched, teacher=None)]))
    assert main.startswith("kl keeps 80 % of the teacher's nDCG@10")
    assert sure.startswith("Test nDCG@10 40.00 %")
    tokens = {"accuracy": 0.5, "perplexity": 3.0}
    main, _ = headline(summarise([make_result("ce()", 0, 0.5, test=tokens, teacher=None)]))
    assert main == "student alone reaches 50.0 % test token accuracy on digits"


# With an evaluation


def _records(folder: Path, *several: dict[str, object]) -> list[Evaluation]:
    paths = [
        write_evaluation(folder / str(number) / "evaluation.json", values) for number, values in enumerate(several)
    ]
    return [read_evaluation(path) for path in paths]


def test_operations_and_time_take_the_place_of_parameters_where_they_were_measured(tmp_path: Path) -> None:
    rows = summarise([make_result("kd()", seed, 0.76) for seed in range(2)])
    others = make_evaluation(data="cifar10"), make_evaluation(cost=None)
    main, sure = headline(rows, _records(tmp_path, *others, make_evaluation()))
    assert main == "kd() keeps 95 % of the teacher's accuracy at 1/6 of its multiply-accumulates and 40 % of its time"
    assert "Time is that of a forward pass of 128 images on cpu, 1 thread." in sure
    assert "1/200 of its parameters" in headline(rows, _records(tmp_path, *others))[0]


def test_the_cost_of_another_network_is_not_taken(tmp_path: Path) -> None:
    rows = summarise([make_result("kd()", 0, 0.76, student_parameters=2_000)])
    assert "1/100 of its parameters" in headline(rows, _records(tmp_path, make_evaluation()))[0]


def test_an_evaluation_alone_has_a_headline(tmp_path: Path) -> None:
    main, sure = headline([], _records(tmp_path, make_evaluation()))
    assert main.startswith("icd-seed0 keeps 95 % of the teacher's accuracy at 1/6 of its multiply-accumulates")
    assert "Accuracy 76.00 % on 100 images of digits, test (one network" in sure
    networks = make_evaluation()["networks"]
    alone = make_evaluation(networks={"model": networks["icd-seed0"]}, cost=None)
    assert headline([], _records(tmp_path, alone))[0] == "model reaches 76.0 % accuracy on digits"
    lone = make_evaluation(networks={"teacher": networks["teacher"]}, cost=None)
    assert headline([], _records(tmp_path, lone))[0] == "No finished run has an accuracy yet"


@pytest.mark.parametrize(("ratio", "said"), [(200, "1/200"), (6.2, "1/6"), (2.5, "40 %"), (1, "100 %"), (0.8, "125 %")])
def test_shares_are_fractions_where_they_are_small(ratio: float, said: str) -> None:
    assert share(ratio) == said


# What the headline does not claim


def test_the_best_method_is_told_apart_from_the_next_or_said_not_to_be() -> None:
    taught = [make_result("kd()", seed, 0.76 + seed / 100) for seed in range(3)]
    close = [make_result("ce() + icd()", seed, 0.765 + (2 - seed) / 100) for seed in range(3)]
    _, sure = headline(summarise(taught + close))
    assert (
        "highest mean test accuracy of 2 methods with a teacher here, but not told apart from that of kd() (+0.50 po"
        in sure
    )
    clear = [make_result("ce() + icd()", seed, 0.79 + seed / 100 + seed**2 / 1000) for seed in range(3)]
    _, sure = headline(summarise(taught + clear))
    assert sure.startswith("The highest mean test accuracy of 2 methods with a teacher here. ")
    _, sure = headline(summarise([taught[0], close[0]]))
    assert "not told apart from that of kd()" in sure


def test_a_student_that_a_teacher_made_no_better_is_not_praised() -> None:
    alone = [make_result("ce()", seed, 0.75, teacher=None) for seed in range(2)]
    main, _ = headline(summarise([*alone, *(make_result("kd()", seed, 0.7) for seed in range(2))]))
    assert main == "kd() keeps 87 % of the teacher's accuracy at 1/200 of its parameters, less than student alone"
    main, _ = headline(summarise([*alone, *(make_result("kd()", seed, 0.75) for seed in range(2))]))
    assert main.endswith(", no more than student alone")


def test_methods_on_other_data_do_not_compete() -> None:
    easy = {"data": "easy", "teacher_test": {"count": 100, "accuracy": 0.2}}
    results = [make_result("kd()", 0, 0.7), make_result("ce() + icd()", 0, 0.75), make_result("at()", 0, 0.2, **easy)]
    main, sure = headline(summarise(results))
    assert main.startswith("at() keeps 100 %")
    assert "The highest" not in sure
    assert "Other students and data sets are in the table." in sure
    # A share of another teacher's accuracy is no measure of which method is the better one.
    weak = make_result("ce() + icd()", 0, 0.5, teacher="weak", teacher_test={"count": 100, "accuracy": 0.5})
    main, sure = headline(summarise([make_result("kd()", 0, 0.7), weak]))
    assert main.startswith("kd() keeps 87 %")
    assert "of 2 methods" in sure


def test_better_is_taken_back_where_the_number_of_methods_does() -> None:
    results = [make_result("ce()", seed, 0.6, teacher=None) for seed in range(3)]
    for objective in ("kd()", "at()", "ce() + icd()"):
        gains = (0.014, 0.02, 0.025) if objective == "kd()" else (0.015, -0.01, 0.01)
        results += [make_result(objective, seed, 0.6 + gain) for seed, gain in enumerate(gains)]
    _, sure = headline(summarise(results))
    assert ": better, but p is 0.08 once corrected for the number of methods (Holm)." in sure


def test_the_time_is_that_of_the_student_in_the_headline(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    network, cost = evaluation["networks"]["icd-seed0"], evaluation["cost"]["networks"]["icd-seed0"]
    timed = [{**each, "median_ms": 10.0} for each in cost["latency"]]
    evaluation["networks"]["kd-seed0"] = {**network, "method": "kd()"}
    evaluation["cost"]["networks"]["kd-seed0"] = {**cost, "latency": timed}
    records = _records(tmp_path, evaluation)
    assert headline(summarise([make_result("kd()", 0, 0.76)]), records)[0].endswith("1/5 of its time")
    assert headline(summarise([make_result("at()", 0, 0.76)]), records)[0].endswith("40 % of its time")

"""The table: means, sample deviations, paired differences, names."""

from __future__ import annotations

import io
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from limbeck.errors import SettingError
from limbeck.objectives import parse_objective, presets
from limbeck.report.names import method_label, short_expression
from limbeck.report.rows import summarise
from limbeck.report.statistics import Stat
from limbeck.report.table import columns, markdown, note, rich_table, warning
from limbeck.runs import Result

from .conftest import TEACHER_ACCURACY, make_result

ALONE, ICD = [0.60, 0.64, 0.61], [0.70, 0.72, 0.74]


def _results() -> list[Result]:
    alone = [make_result("ce()", seed, value, teacher=None) for seed, value in enumerate(ALONE)]
    return [*alone, *(make_result("ce() + icd()", seed, value) for seed, value in enumerate(ICD))]


def test_the_deviation_is_that_of_a_sample_and_one_number_has_none() -> None:
    stat = Stat.of([1.0, 2.0, 4.0, None])
    assert stat is not None
    assert (stat.mean, stat.count) == (pytest.approx(7 / 3), 3)
    assert stat.std == pytest.approx(statistics.stdev([1.0, 2.0, 4.0]))
    assert Stat.of([1.0]) == Stat(1.0, None, 1)
    assert Stat.of([None]) is None


def test_rows_are_the_teacher_then_the_baseline_then_by_accuracy() -> None:
    results = [make_result("kd()", 0, 0.5), *_results()]
    rows = summarise(results)
    assert [row.label for row in rows] == ["teacher big", "student alone", "icd", "kd()"]
    teacher, alone, icd, kd = rows
    assert teacher.is_teacher
    assert teacher.test == Stat(TEACHER_ACCURACY, None, 1)
    assert alone.baseline
    assert alone.difference is None
    assert alone.agreement is None
    assert icd.kept is not None
    assert icd.kept.mean == pytest.approx(statistics.mean(ICD) / TEACHER_ACCURACY)
    assert icd.parameters_ratio == 200
    assert kd.test == Stat(0.5, None, 1)


def test_differences_are_paired_over_the_shared_seeds() -> None:
    results = [*_results(), make_result("ce() + icd()", 7, 0.1)]
    icd = next(row for row in summarise(results) if row.label == "icd")
    differences = [a - b for a, b in zip(ICD, ALONE, strict=True)]
    assert icd.seeds == (0, 1, 2, 7)
    assert icd.difference is not None
    assert icd.difference.count == 3
    assert icd.difference.mean == pytest.approx(statistics.mean(differences))
    assert icd.difference.std == pytest.approx(statistics.stdev(differences))


def test_a_seed_that_was_run_twice_counts_once() -> None:
    row = summarise([make_result("kd()", seed, value) for seed, value in ((0, 0.5), (0, 0.7), (1, 0.8))])[-1]
    assert row.seeds == (0, 1)
    assert row.test is not None
    assert (row.test.count, row.test.mean) == (2, pytest.approx(0.7))
    assert row.test.std == pytest.approx(statistics.stdev([0.6, 0.8]))


def test_one_shared_seed_is_no_comparison() -> None:
    results = [make_result("ce()", 0, 0.6, teacher=None), make_result("kd()", 0, 0.7), make_result("kd()", 1, 0.7)]
    assert summarise(results)[-1].difference is None


def test_the_first_method_is_the_baseline_when_no_student_learned_alone() -> None:
    rows = summarise([make_result("kd()", 0, 0.6), make_result("icd()", 0, 0.7)])
    assert [(row.label, row.baseline) for row in rows[1:]] == [("kd()", True), ("icd()", False)]


def test_any_method_can_be_the_baseline() -> None:
    rows = summarise(_results(), baseline="icd")
    assert [(row.label, row.baseline) for row in rows[1:]] == [("icd", True), ("student alone", False)]
    assert rows[-1].difference is not None
    assert rows[-1].difference.mean == pytest.approx(statistics.mean(ALONE) - statistics.mean(ICD))
    with pytest.raises(SettingError, match=r"baseline: .*'idc'.*'icd'"):
        summarise(_results(), baseline="idc")


def test_a_lone_method_is_nobodys_baseline() -> None:
    assert not any(row.baseline for row in summarise([make_result("kd()", 0, 0.6)]))


def test_without_a_test_split_the_validation_counts() -> None:
    results = [replace(result, test=None, teacher_test=None) for result in _results()]
    icd = summarise(results)[-1]
    assert icd.test is None
    assert icd.difference is not None
    assert icd.difference.mean == pytest.approx(statistics.mean(ICD) - statistics.mean(ALONE))


def test_an_accuracy_has_the_title_of_what_it_is_of() -> None:
    tests = {"test %": {}, "test tokens %": {"perplexity": 3.0}, "test in batch %": {"ndcg_10": 0.5}}
    for title, more in tests.items():
        rows = summarise([make_result("kl()", 0, 0.5, teacher=None, test={"accuracy": 0.5, **more})])
        shown = {column.title: column.text(rows[-1]) for column in columns(rows) if column.title.startswith("test")}
        assert shown == {title: "50.00 ± –"}


def test_every_preset_is_called_by_a_name_that_makes_it_again() -> None:
    for expression in presets().values():
        whole = str(parse_objective(expression))
        assert str(parse_objective(method_label(make_result(whole, 0, 0.5)))) == whole


def test_icd_is_called_icd_whatever_other_presets_are_the_same() -> None:
    assert method_label(make_result("ce() + icd()", 0, 0.5)) == "icd"


def test_what_learned_without_a_teacher_is_alone_only_where_it_learned_from_labels() -> None:
    labels = [method_label(make_result(text, 0, 0.5, teacher=None)) for text in ("ce()", "dml()", "ce() + 2*dml()")]
    assert labels == ["student alone", "dml", "ce + 2*dml"]
    smoothed = make_result("ce(label_smoothing=0.1)", 0, 0.5, teacher=None)
    assert method_label(smoothed) == "student alone, ce(label_smoothing=0.1)"


@pytest.mark.parametrize("expression", ["icd()", "kd()", "ce() + 0.5*icd()", "ce() + icd(alpha=0.25)"])
def test_a_short_expression_means_the_same(expression: str) -> None:
    assert str(parse_objective(short_expression(expression))) == expression


def test_networks_data_epochs_and_variants_are_told_apart() -> None:
    results = [
        make_result("kd()", 0, 0.5),
        make_result("kd()", 0, 0.6, epochs=9),
        make_result("kd()", 0, 0.7, student="tiny"),
        make_result("kd()", 0, 0.8, data="cifar10"),
        make_result("kd()", 0, 0.9),
    ]
    rows = [row for row in summarise(results, ["", "", "", "", "lr=1"]) if not row.is_teacher]
    assert len(rows) == len({(row.label, row.student, row.data) for row in rows}) == 5
    assert "kd() · lr=1 · 3 epochs" in [row.label for row in rows]
    assert [column.title for column in columns(rows)][:4] == ["method", "network", "data", "n"]


def test_the_teachers_own_training_is_not_a_student_alone() -> None:
    results = [*_results(), make_result("ce()", 0, 0.8, teacher=None, student="big")]
    assert "big alone" in [row.label for row in summarise(results)]


def test_markdown_says_what_a_missing_deviation_means() -> None:
    text = markdown(summarise([*_results(), make_result("kd()", 0, 0.5)]))
    assert "| icd | 3 | 72.00 ± 2.00 | +10.33 ± 2.52 | +4.08 to +16.58 | better | 0.019 | 90.00 ± 2.50 |" in text
    assert "| kd() | 1 | 50.00 ± – | – | – | – | – |" in text
    assert "sample standard deviation (n-1)" in text


def test_the_terminal_table_fits_and_names_what_it_leaves_out() -> None:
    rows = summarise([*_results(), make_result("ce() + icd(alpha=[1, 2])", 0, 0.5)])
    for width in (60, 80, 200):
        console = Console(width=width, file=io.StringIO(), force_terminal=False)
        console.print(rich_table(rows, width=width))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "72.00 ± 2.00" in text
        assert "icd(alpha=[1, 2])" in text
        assert ("Not shown" in text) == (width < 120)


def test_rows_are_plain_values() -> None:
    values = summarise(_results())[-1].as_dict()
    assert values["label"] == "icd"
    assert values["test"]["count"] == 3
    assert values["difference"]["verdict"] == "better"
    assert (values["seeds"], values["scores"]) == ((0, 1, 2), tuple(ICD))


def test_p_values_are_corrected_among_the_rows_of_one_baseline() -> None:
    alone = [make_result("ce()", seed, value, teacher=None) for seed, value in enumerate(ALONE)]
    kd = [make_result("kd()", seed, value) for seed, value in enumerate([0.62, 0.65, 0.61])]
    elsewhere = [replace(result, data="cifar10") for result in _results()]
    rows = {(row.label, row.data): row.difference for row in summarise([*_results(), *kd, *elsewhere, *alone])}
    icd, second, other = rows["icd", "digits"], rows["kd()", "digits"], rows["icd", "cifar10"]
    assert icd is not None
    assert second is not None
    assert other is not None
    assert icd.p is not None
    assert icd.p_holm == pytest.approx(2 * icd.p)
    assert second.p_holm == pytest.approx(second.p)
    assert (other.p, other.p_holm) == pytest.approx((icd.p, icd.p))
    assert second.verdict == "not told apart"


def _seeds(count: int) -> list[Result]:
    alone = [make_result("ce()", seed, 0.5 + seed / 100, teacher=None) for seed in range(count)]
    return [*alone, *(make_result("kd()", seed, 0.6 + seed**2 / 1000) for seed in range(count))]


def test_few_seeds_are_warned_of_and_five_are_not() -> None:
    assert "no interval" in warning(summarise(_seeds(1)))
    for count, reach in ((2, "9.0"), (3, "2.5"), (4, "1.6")):
        assert f"with {count} pairs an interval is wide, {reach} standard" in warning(summarise(_seeds(count)))
        assert "no interval" not in warning(summarise(_seeds(count)))
    assert warning(summarise(_seeds(5))) == ""
    assert warning(summarise(_seeds(5)[:5])) == ""  # one method is compared with none
    assert "with 3 pairs" in note(summarise(_seeds(3)))
    assert "95 % confidence intervals" not in note(summarise(_seeds(1)))


def test_pairs_are_shown_where_they_are_not_the_seeds() -> None:
    titles = [column.title for column in columns(summarise(_results()))]
    assert "95 % interval" in titles
    assert "pairs" not in titles
    text = markdown(summarise([*_results(), make_result("ce() + icd()", 7, 0.1)]))
    assert "| icd | 4 | 56.50 ± 31.04 | +10.33 ± 2.52 | 3 | +4.08 to +16.58 |" in text


def test_shared_passes_and_memory_are_columns_of_their_own() -> None:
    assert not {"shared s", "memory MB"} & {column.title for column in columns(summarise(_results()))}
    results = [
        replace(result, seconds=1.0 + result.seed, shared_seconds=30.0, shared_with=6, memory_mb=12.4)
        for result in _results()
    ]
    icd = summarise(results)[-1]
    assert icd.seconds == Stat(2.0, 1.0, 3)
    assert icd.shared_seconds == Stat(30.0, 0.0, 3)
    assert icd.memory_mb is not None
    text = markdown([icd])
    assert text.splitlines()[2].endswith("| 2.0 | 30.0 by 6 | 12 |")
    assert "Seconds are those that a student took alone" in text


def test_nothing_makes_an_empty_table() -> None:
    assert summarise([]) == []
    assert "method" in markdown([])
    rich_table([], width=80)

"""Reading run folders, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.errors import Failure
from limbeck.report.curves import loss_curves, validation_curve
from limbeck.report.identity import variants
from limbeck.report.read import Run, find_runs, read_run

from .conftest import make_result, write_run


def test_folders_of_runs_and_runs_themselves_are_found(runs: Path, tmp_path: Path) -> None:
    assert len(find_runs([runs])) == 10
    assert find_runs([runs / "icd-0", runs / "icd-0"]) == [runs / "icd-0"]
    assert find_runs([tmp_path / "nothing"]) == [tmp_path / "nothing"]


def test_damage_is_a_sentence_and_not_an_error(runs: Path, tmp_path: Path) -> None:
    problems = {run.name: run.problem for run in map(read_run, find_runs([runs])) if run.problem}
    assert set(problems) == {"damaged", "other", "binary"}
    assert "result.json is damaged" in str(problems["damaged"])
    assert "student: field required" in str(problems["other"])
    assert "metrics.jsonl cannot be read" in str(problems["binary"])
    assert read_run(tmp_path / "nothing").problem == "there is no such folder"
    assert "not a run's folder" in str(read_run(tmp_path).problem)


def test_an_unfinished_run_says_how_far_it_came(runs: Path) -> None:
    run = read_run(runs / "unfinished")
    assert run.result is None
    assert run.progress() == "step 20, epoch 2 of 3, validation accuracy 40.00%"
    assert Run(runs).progress() == "no step logged yet"


def _comparison(folder: Path, **members: str) -> Path:
    """A comparison's folder: settings of its own, and a run below it for each member that finished, failed or goes on."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("objectives: [kd, icd]\nseeds: 1\n")
    for name, state in members.items():
        result = make_result("kd()", 0, 0.5) if state == "finished" else None
        member = write_run(folder / name, result, settings={"objective": name})
        if state == "failed":
            (member / "failure.json").write_text(json.dumps(_FAILURE))
    return folder


_FAILURE = {"reason": "the term 'kd' became NaN.", "step": 12, "when": "2026-01-01T00:00:00Z"}


def test_the_runs_of_a_comparison_stand_for_it(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "runs" / "many", kd="finished", icd="failed", crd="unfinished")
    alone = write_run(tmp_path / "runs" / "alone", make_result("ce()", 0, 0.5, teacher=None))
    members = [folder / name for name in ("crd", "icd", "kd")]
    assert find_runs([folder]) == members
    assert find_runs([tmp_path / "runs"]) == [alone, *members]
    assert find_runs([tmp_path / "runs", folder, members[2]]) == [alone, *members]
    assert [read_run(path).name for path in (alone, members[2])] == ["alone", "many/kd"]


def test_a_comparison_that_has_not_begun_is_named_as_such(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "many")
    assert find_runs([folder]) == [folder]
    assert read_run(folder).problem == "it is a comparison of which no run has begun"


def test_a_failed_member_says_why(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "many", kd="failed", icd="finished")
    run = read_run(folder / "kd")
    assert (run.result, run.problem) == (None, None)
    assert run.failure is not None
    assert (run.failure.reason, run.failure.step) == ("the term 'kd' became NaN.", 12)
    assert str(run.failure) == "the term 'kd' became NaN. (at step 12, 2026-01-01T00:00:00Z)"
    assert str(Failure("too large")) == "too large"
    (folder / "icd" / "failure.json").write_text(json.dumps(_FAILURE))
    finished = read_run(folder / "icd")
    assert finished.failure is None
    assert finished.result is not None


def test_a_failure_whose_files_are_damaged_stays_a_failure(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "many", kd="failed")
    (folder / "kd" / "metrics.jsonl").write_bytes(b"\xff")
    run = read_run(folder / "kd")
    assert run.problem is None
    assert run.failure is not None
    for text in ("", "[]", "{}", '{"reason": 3}', "\xff"):
        (folder / "kd" / "failure.json").write_text(text, encoding="latin-1")
        assert "damaged" in str(read_run(folder / "kd").failure)


def test_a_member_that_failed_before_it_had_settings_is_found(tmp_path: Path) -> None:
    folder = _comparison(tmp_path / "many", kd="finished")
    (folder / "icd").mkdir()
    (folder / "icd" / "failure.json").write_text('{"reason": "out of memory"}')
    assert find_runs([folder]) == [folder / "icd", folder / "kd"]
    assert str(read_run(folder / "icd").failure) == "out of memory"


def _variants(runs: list[Run]) -> list[str]:
    return variants([run.result for run in runs if run.result is not None], [run.settings for run in runs])


def test_the_seed_of_the_order_makes_no_other_method(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(n), make_result("kd()", n, 0.5), settings={"order_seed": n}) for n in range(2)]
    assert _variants([read_run(path) for path in runs]) == ["", ""]


def test_only_settings_that_make_another_method_set_runs_apart(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", make_result("kd()", 0, 0.5), settings={"lr": 0.1, "name": "a"})
    second = write_run(tmp_path / "b", make_result("kd()", 1, 0.5), settings={"lr": 0.2, "name": "b", "seed": 1})
    third = write_run(tmp_path / "c", make_result("icd()", 1, 0.5), settings={"lr": 0.3})
    assert _variants([read_run(path) for path in (first, second, third)]) == ["lr=0.1", "lr=0.2", ""]


def test_whose_text_is_seen_is_said_of_every_objective_where_it_differs(tmp_path: Path) -> None:
    policies = [("kl()", "fixed"), ("kl()", "student"), ("ce()", "teacher")]
    made = [
        write_run(tmp_path / str(number), make_result(objective, 0, 0.5), settings={"policy": policy})
        for number, (objective, policy) in enumerate(policies)
    ]
    found = [read_run(path) for path in made]
    assert _variants(found) == ["fixed", "student", "teacher"]
    assert _variants(found[:1]) == [""]
    usual = read_run(write_run(tmp_path / "usual", make_result("kl()", 0, 0.5), settings={}))
    assert _variants([found[1], usual]) == ["student", "fixed"]


def test_a_setting_that_an_older_limbeck_had_not_is_as_if_it_were_left_alone(tmp_path: Path) -> None:
    older = write_run(tmp_path / "a", make_result("kd()", 0, 0.5), settings={"lr": 0.1})
    newer = write_run(tmp_path / "b", make_result("kd()", 1, 0.5), settings={"lr": 0.1, "label_noise": None})
    noisy = write_run(tmp_path / "c", make_result("kd()", 2, 0.5), settings={"lr": 0.1, "taught_by": "mean"})
    assert _variants([read_run(path) for path in (older, newer)]) == ["", ""]
    assert _variants([read_run(path) for path in (older, noisy)]) == ["taught_by=chain", "taught_by=mean"]


def test_other_weights_are_another_method_and_another_seed_is_not(tmp_path: Path) -> None:
    made = [("a", 0, "small"), ("a", 1, "small"), ("b", 0, "small"), ("a", 0, "small@warm")]
    found = []
    for number, (weights, seed, student) in enumerate(made):
        settings = {"teacher": f"big@{weights}", "student": student, "seed": seed}
        found.append(read_run(write_run(tmp_path / str(number), make_result("kd()", seed, 0.5), settings=settings)))
    assert _variants(found[:2]) == ["", ""]
    assert _variants(found[:3]) == ["teacher=big@a", "teacher=big@a", "teacher=big@b"]
    assert len(set(_variants(found))) == 3
    for run in found:
        run.settings["model"] = run.settings.pop("student")
    assert _variants([found[0], found[3]]) == ["model=small", "model=small@warm"]


def test_curves_span_the_seeds_and_leave_out_what_is_no_loss(runs: Path) -> None:
    members = [read_run(runs / "icd-0"), read_run(runs / "icd-1")]
    members[1].metrics[1]["accuracy"] = 0.4
    line = validation_curve("icd", members)
    assert line is not None
    assert list(line.x) == [1.0, 2.0, 3.0]
    assert (line.mean[0], line.low[0], line.high[0]) == pytest.approx((30.0, 20.0, 40.0))
    assert [line.label for line in loss_curves(members)] == ["loss", "ce", "icd.contrast"]
    assert validation_curve("none", [Run(runs)]) is None


def test_stages_follow_one_another(runs: Path) -> None:
    run = read_run(runs / "icd-0")
    for record in run.metrics[4:]:
        record.update(stage=1, epoch=1.0)
    line = validation_curve("icd", [run])
    assert line is not None
    assert list(line.x) == [1.0, 2.0, 3.0]

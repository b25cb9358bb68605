"""Which networks, data and teacher the folders tell of, also where they are damaged, unfinished or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.cli.subjects import subjects
from limbeck.errors import SettingError
from limbeck.runs import CONFIG, FAILURE, STUDENT

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the folder of a run in ``runs``, or in a comparison there; its weights are not looked at."""

    def made(name: str, *, finished: bool = True, **config: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(yaml.safe_dump({"data": "digits", "val_fraction": 0.1, **config}))
        if finished:
            (folder / STUDENT).touch()
        return folder

    return made


def test_a_run_that_is_named_twice_counts_once(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, other = make("one"), make("other")
    monkeypatch.chdir(tmp_path)
    assert list(subjects([str(one), "runs", "runs/other/"], None).models) == ["one", "other"]
    again = make("more/one")
    found = subjects([str(one), str(again), str(other / STUDENT)], None)
    assert list(found.models) == ["runs/one", "more/one", "other"]


def test_members_that_did_not_finish_are_said(make: Make) -> None:
    comparison = make("many", finished=False, objectives="kd, at")
    make("many/kd")
    make("many/at", finished=False)
    failed = make("many/icd", finished=False)
    (failed / FAILURE).write_text("{}")
    found = subjects([str(comparison)], None)
    assert list(found.models) == ["kd"]
    assert len(found.remarks) == 1
    assert "left out" in found.remarks[0]
    assert found.remarks[0].endswith(": at, icd.")
    (comparison / "kd" / STUDENT).unlink()
    with pytest.raises(SettingError, match=r"without student\.safetensors"):
        subjects([str(comparison)], None)


@pytest.mark.parametrize("text", [b"data: [", b"\xff\xfe\x00", b"- one", b"data: 2024-99-99"])
def test_settings_that_cannot_be_read_are_named(make: Make, text: bytes) -> None:
    run = make("broken")
    (run / CONFIG).write_bytes(text)
    with pytest.raises(SettingError, match=r"broken/config\.yaml (cannot be read|must hold)"):
        subjects([str(run)], None)


def test_runs_may_differ_in_what_is_given_or_not_looked_at(make: Make) -> None:
    runs = [str(make("few", test_limit=10, label_noise=0.2)), str(make("all", label_noise=None))]
    with pytest.raises(SettingError, match=r"few has test_limit=10 and all has test_limit=None.*give --test-limit"):
        subjects(runs, None)
    assert list(subjects(runs, None, given={"test_limit"}).models) == ["few", "all"]
    assert list(subjects(runs, None, splits=["validation"]).models) == ["few", "all"]
    with pytest.raises(SettingError, match="label_noise"):
        subjects(runs, None, splits=["train", "test"])


def test_validation_images_that_one_was_trained_on_are_said(make: Make) -> None:
    runs = [str(make("most", val_fraction=0.04)), str(make("less", val_fraction=0.2))]
    (remark,) = subjects(runs, None).remarks
    assert "those of most (val_fraction=0.04); less had others" in remark
    assert subjects(runs, None, given={"val_fraction"}).remarks == ()
    with pytest.raises(SettingError, match="val_fraction"):
        subjects(runs, None, splits=["validation"])


def test_the_teacher_is_found_from_where_the_run_was_started(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = make("big@home") / STUDENT
    paths = [f"resnet20@runs/big@home/{STUDENT}", "runs/big@home"]
    students = [str(make(f"kd{n}", teacher=path, runs_dir="runs")) for n, path in enumerate(paths)]
    member = str(make("many/kd", teacher=paths[1], runs_dir="runs/many"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert subjects(students[:1], None).teacher == f"resnet20@{weights}"
    assert subjects([students[1], member], None).teacher == str(weights.parent)
    assert subjects(students, None).teacher is None  # two texts of one network are not known to be so
    assert subjects(students, "none").remarks == ()
    monkeypatch.chdir(tmp_path)
    assert subjects(students[1:], None).teacher == paths[1]
    weights.unlink()
    (remark,) = subjects(students[:1], None).remarks
    assert f"teacher {paths[0]} is not here" in remark


@pytest.mark.parametrize("teacher", ["my_nets:big(width=3)", "timm:resnet18@pretrained", "hf:somebody/network"])
def test_a_teacher_without_a_file_is_here(make: Make, teacher: str) -> None:
    found = subjects([str(make("kd", teacher=teacher))], None)
    assert (found.teacher, found.remarks) == (teacher, ())


def test_a_teacher_that_lies_among_the_runs_is_no_student(make: Make, tmp_path: Path) -> None:
    teacher, other = make("teacher"), make("other")
    one = make("one", teacher=str(teacher))
    found = subjects([str(tmp_path / "runs")], None)
    assert (list(found.models), found.teacher) == (["one", "other"], str(teacher))
    assert list(subjects([str(tmp_path / "runs")], f"mean({teacher}, {other})").models) == ["one"]
    # Who names it means it.
    assert list(subjects([str(one), str(teacher)], None).models) == ["one", "teacher as student"]
    assert list(subjects([str(tmp_path / "runs"), str(teacher)], None).models) == ["one", "other", "teacher as student"]


def test_what_the_runs_say_of_their_networks_is_taken_over(make: Make) -> None:
    teacher = str(make("teacher"))
    own = {"student_classifier": "head", "teacher_size": 48, "teacher_classifier": "fc", "plugins": ["nets.py"]}
    one = str(make("one", teacher=teacher, **own))
    other = str(make("other", teacher=teacher, teacher_size=48, teacher_classifier="fc", plugins=["nets.py", "more"]))
    found = subjects([one, other], None)
    assert found.classifiers == {"one": "head", "teacher": "fc"}
    assert found.sizes == {"teacher": 48}
    assert found.plugins == ("nets.py", "more")
    # Of another teacher the runs know nothing.
    assert subjects([one], "elsewhere").sizes == {}
    smaller = str(make("smaller", teacher=teacher))
    found = subjects([one, smaller], None)
    assert found.teacher is None
    assert f"{teacher} with teacher_classifier=fc, teacher_size=48" in found.remarks[0]


def test_a_teacher_of_several_networks_is_found_from_where_the_run_was_started(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make("first")
    make("second")
    run = make("one", teacher="mean(runs/first, runs/second, weights=[2, 1])", runs_dir="runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = subjects([str(run)], None)
    assert found.teacher == f"mean({tmp_path}/runs/first, {tmp_path}/runs/second, weights=[2, 1])"
    (tmp_path / "runs" / "second" / STUDENT).unlink()
    (tmp_path / "runs" / "second").rename(tmp_path / "runs" / "gone")
    assert "is not here" in subjects([str(run)], None).remarks[0]


def test_a_teacher_on_a_server_is_not_compared_with(make: Make) -> None:
    server = "server:http://localhost:1/v1?model=tiny"
    run = str(make("served", teacher=server))
    found = subjects([run], None)
    assert found.teacher is None
    assert found.remarks == ("the runs' teacher is tiny on a server, so none is compared with; name --teacher.",)
    assert subjects([run], "none").remarks == ()
    for models, teacher in (([run], server), ([server], None)):
        with pytest.raises(SettingError, match="asked about training texts alone"):
            subjects(models, teacher)


@pytest.mark.parametrize("teacher", ["cross:folder", "cross:folder(pairs='batch')", "scores"])
def test_a_teacher_that_scores_pairs_is_left_out(make: Make, teacher: str) -> None:
    found = subjects([str(make("student", teacher=teacher))], None)
    assert found.teacher is None
    assert "scores pairs" in found.remarks[0]

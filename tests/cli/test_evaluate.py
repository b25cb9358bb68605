"""Every figure of a trained pair in one command, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from limbeck.evaluate.record import SCHEMA, Evaluation

from .conftest import Run, no_traceback, said_in_this_process

NOT_ASKED = (
    "classification",
    "calibration",
    "fidelity",
    "retrieval",
    "database",
    "distribution",
    "robustness",
    "transfer",
    "cost",
    "examples",
    "embedding_map",
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other data: coloured images of three classes, of another size."""
    import numpy as np

    generator = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = generator.integers(0, 60, (150, 12, 12, 3))
    for row, label in enumerate(labels):
        images[row, 4 * label : 4 * label + 4] += 180
    path = tmp_path_factory.mktemp("other") / "stripes.npz"
    arrays = {"images": images.astype(np.uint8), "labels": labels}
    np.savez(
        path,
        **{f"train_{name}": a[:100] for name, a in arrays.items()},
        **{f"test_{n}": a[100:] for n, a in arrays.items()},
    )
    return path


def test_all_figures_in_one_command(limbeck: Run, work: Path, other: Path) -> None:
    words = ["evaluate", "runs/teacher", "--teacher", "runs/teacher", "--all", "--robustness-limit", "50"]
    words += ["--transfer", str(other), "--transfer-protocol", "both", "--transfer-epochs", "2", "--parts", "database"]
    said = limbeck(*words, "--ood", str(other), "--test-limit", "200", "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert [name for name in NOT_ASKED if value[name] is None] == []
    assert value["networks"]["model"]["accuracy"] == value["networks"]["teacher"]["accuracy"]
    assert value["fidelity"]["model"]["cka_embedding"] == pytest.approx(1)
    assert value["robustness"]["model"]["count"] == 50
    assert value["transfer"]["model"]["frozen"]["logistic"]["accuracy"] > 0.9
    assert value["transfer"]["model"]["authors"]["epochs"] == 2
    assert value["cost"]["ratios"]["model"]["macs"] == 1
    assert value["cost"]["networks"]["model"]["file_bytes"] > value["cost"]["networks"]["model"]["bytes"]
    assert value["remarks"] == []
    assert "robustness" in said.err.splitlines()


def test_tables_of_some_parts(limbeck: Run, work: Path) -> None:
    words = [
        "evaluate",
        "runs/teacher",
        "--parts",
        "calibration,accuracy,database",
        "--parts",
        "cost",
        "--ood",
        "noise",
    ]
    said = limbeck(*words, "--test-limit", "150", "--quiet")
    assert said.code == 0, said.err
    for part in (
        "ECE, bins of equal width",
        "temperature",
        "hardest classes",
        "multiply-accumulates",
        "uniform noise",
        "by cosine",
        "of the first 100",
    ):
        assert part in said.out
    assert "student against teacher" not in said.out
    assert said.err == ""


def test_scores_alone_without_options(limbeck: Run, work: Path) -> None:
    value = json.loads(limbeck("evaluate", "runs/teacher", "--json").out)
    assert [name for name in NOT_ASKED if value[name] is not None] == []
    assert value["schema"] == SCHEMA


def test_what_is_left_out_is_said(limbeck: Run, work: Path) -> None:
    said = limbeck("evaluate", "runs/teacher", "--parts", "fidelity,calibration", "--split", "validation")
    assert said.code == 0, said.err
    assert "fidelity is left out: it needs a teacher" in said.err
    assert "is the one evaluated" in said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--parts", "calibraton"], ["unknown part 'calibraton'", "did you mean 'calibration'"]),
        (["--ood", "digits"], ["ood is 'digits', the data that is evaluated"]),
        (["--ood", "svnh"], ["svnh", "did you mean 'svhn'"]),
        (["--transfer-protocol", "author"], ["transfer_protocol", "'author'"]),
        (["--split", "valdation"], ["split", "'valdation'"]),
    ],
)
def test_what_is_refused(limbeck: Run, work: Path, words: list[str], expected: list[str]) -> None:
    said = limbeck("evaluate", "runs/teacher", *words)
    assert said.code == 2
    lines = " ".join(no_traceback(said))
    assert all(part in lines for part in expected), lines


@pytest.fixture(scope="module")
def students(trained: Path) -> Path:
    """A comparison of one student."""
    words = ["--student", "convnet_tiny", "--objectives", "icd", "--seeds", "1", "--epochs", "2", "--no-baselines"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        said = said_in_this_process("compare", "--teacher", "runs/teacher", *words, "--name", "students", "--quiet")
    assert said.code == 0, said.err
    return trained / "runs" / "students"


def test_a_comparison_stands_for_its_students_and_knows_their_teacher(limbeck: Run, work: Path, students: Path) -> None:
    words = [
        "evaluate",
        "runs/students",
        "runs/teacher",
        "--parts",
        "fidelity",
        "--output",
        "runs/students/evaluation.json",
    ]
    said = limbeck(*words, "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert list(value["networks"]) == ["icd-seed0", "teacher as student", "teacher"]
    assert [entry["method"] for entry in value["networks"].values()] == ["icd", "student alone", None]
    assert value["fidelity"]["teacher as student"]["agreement"] == 1
    assert json.loads((students / "evaluation.json").read_text()) == value
    assert limbeck(*words, "--quiet").code == 0  # an evaluation is replaced
    assert "icd-seed0" in limbeck("evaluate", "runs/students", "--teacher", "none").out

    (work / "notes.json").write_text('{"mine": 1}')
    said = limbeck("evaluate", "runs/students", "--output", "notes.json")
    assert said.code == 2
    assert "holds something else than an evaluation" in no_traceback(said)[0]
    assert (work / "notes.json").read_text() == '{"mine": 1}'
    said = limbeck("evaluate", "runs/students", "--output", "runs")
    assert "is a folder" in no_traceback(said)[0]
    said = limbeck("evaluate", "runs/students", "--all", "--output", "notes.json/deep/evaluation.json")
    assert said.code == 2
    assert "is a file and no folder" in no_traceback(said)[0]
    assert "scores" not in said.err


def test_all_parts_of_a_tiny_split_are_announced_and_shown_before_they_are_written(
    limbeck: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(evaluation: Evaluation, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Evaluation, "write", full)
    words = ["evaluate", "runs/teacher", "--all", "--test-limit", "12", "--robustness-limit", "5", "--batch-size", "4"]
    said = limbeck(*words, "--output", "full.json")
    assert said.code == 1
    assert "full.json is full" in said.err
    assert {"cost", "scores", "calibration", "ood", "robustness", "tsne"} <= set(said.err.splitlines())
    assert "ECE, bins of equal width" in said.out
    said = limbeck(*words, "--output", os.devnull)
    assert said.code == 2
    assert "is no file" in no_traceback(said)[0]


def test_a_teacher_that_is_gone_is_said(limbeck: Run, work: Path, students: Path) -> None:
    config = students / "icd-seed0" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("teacher: runs/teacher", "teacher: runs/gone"))
    try:
        said = limbeck("evaluate", "runs/students/icd-seed0")
    finally:
        config.write_text(text)
    assert said.code == 0, said.err
    assert "the runs' teacher runs/gone is not here" in said.err


def test_a_network_of_a_plugin_is_told_what_to_give(limbeck: Run, work: Path) -> None:
    # A folder may come from somebody else: what it names is not run unasked.
    (work / "mine.py").write_text("raise SystemExit('it was run')")
    folder = work / "runs" / "foreign"
    folder.mkdir()
    (folder / "config.yaml").write_text("data: digits\nplugins: [mine.py]\n")
    (folder / "student.safetensors").write_bytes((work / "runs" / "teacher" / "student.safetensors").read_bytes()[:100])
    said = limbeck("evaluate", "runs/foreign")
    assert said.code == 2
    assert "with --plugins mine.py; give it here too if you trust it" in " ".join(no_traceback(said))
    shutil.rmtree(folder)


def test_a_teacher_of_several_networks(limbeck: Run, work: Path, students: Path) -> None:
    teacher = "mean(runs/teacher, runs/students/icd-seed0)"
    said = limbeck("evaluate", "runs/students", "--teacher", teacher, "--parts", "fidelity", "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert list(value["networks"]) == ["icd-seed0", "teacher"]
    assert (
        value["networks"]["teacher"]["model"] == "mean(convnet_tiny, convnet_tiny)"
    )  # without their folders, as one teacher is called
    said = limbeck("evaluate", "runs/students", "--teacher", "mean(runs/teacher, runs/gone)", "--all")
    assert said.code == 2
    assert "runs/gone" in no_traceback(said)[0]


def test_runs_on_different_data_are_refused(limbeck: Run, work: Path, students: Path) -> None:
    words = ["train", "--model", "convnet_tiny", "--epochs", "1", "--test-limit", "100", "--name", "fewer", "--quiet"]
    assert limbeck(*words).code == 0
    said = limbeck("evaluate", "runs/students", "runs/fewer")
    assert said.code == 2
    assert "fewer has test_limit=100" in no_traceback(said)[0]
    said = limbeck("evaluate")
    assert said.code == 2
    assert "name a network" in no_traceback(said)[0]


def test_other_classes_and_channels_are_refused(limbeck: Run, work: Path, other: Path) -> None:
    said = limbeck("evaluate", "runs/teacher", "--data", str(other))
    assert said.code == 2
    assert "model" in no_traceback(said)[0]

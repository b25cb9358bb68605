"""Every figure of a trained pair in one command, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run, no_traceback

NOT_ASKED = ("classification", "calibration", "fidelity", "retrieval", "distribution", "robustness", "transfer", "cost")


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
    words += ["--transfer", str(other), "--transfer-protocol", "both", "--transfer-epochs", "2"]
    said = limbeck(*words, "--ood", str(other), "--test-limit", "200", "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert [name for name in NOT_ASKED if value[name] is None] == []
    assert value["model"]["accuracy"] == value["teacher"]["accuracy"]
    assert value["fidelity"]["cka_embedding"] == pytest.approx(1)
    assert value["robustness"]["model"]["count"] == 50
    assert value["transfer"]["model"]["frozen"]["logistic"]["accuracy"] > 0.9
    assert value["transfer"]["model"]["authors"]["epochs"] == 2
    assert value["cost"]["ratios"]["macs"] == 1
    assert value["cost"]["networks"]["model"]["file_bytes"] > value["cost"]["networks"]["model"]["bytes"]
    assert value["remarks"] == []
    assert "robustness" in said.err.splitlines()


def test_tables_of_some_parts(limbeck: Run, work: Path) -> None:
    words = ["evaluate", "runs/teacher", "--parts", "calibration,accuracy", "--parts", "cost", "--ood", "noise"]
    said = limbeck(*words, "--test-limit", "150", "--quiet")
    assert said.code == 0, said.err
    for part in ("ECE, bins of equal width", "temperature", "hardest classes", "multiply-accumulates", "uniform noise"):
        assert part in said.out
    assert "student against teacher" not in said.out
    assert said.err == ""


def test_scores_alone_without_options(limbeck: Run, work: Path) -> None:
    value = json.loads(limbeck("evaluate", "runs/teacher", "--json").out)
    assert [name for name in NOT_ASKED if value[name] is not None] == []
    assert value["schema"] == 1


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


def test_other_classes_and_channels_are_refused(limbeck: Run, work: Path, other: Path) -> None:
    said = limbeck("evaluate", "runs/teacher", "--data", str(other))
    assert said.code == 2
    assert "model" in no_traceback(said)[0]

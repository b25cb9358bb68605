"""Real small runs on digits: recipes, results, progress, resume, Ctrl-C, evaluation and export of what was trained."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import look_at, needs_browser

from limbeck.cli import main

from .conftest import Run, Said, no_traceback, said_in_this_process
from .test_look import PLUGIN


def _distill(limbeck: Run, name: str, *words: str) -> Said:
    return limbeck("distill", "--config", "recipe.yaml", "--epochs", "2", "--name", name, *words)


def test_recipe_and_command_line_make_a_run(limbeck: Run, work: Path) -> None:
    said = _distill(limbeck, "first")
    assert said.code == 0
    for part in ("test accuracy", "kept", "student", "teacher", "everything is in runs/first"):
        assert part in said.out
    lines = [line for line in said.err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2  # a plain line an epoch; the recipe's 9 lost against the command line's 2
    assert "images/s" in lines[0]
    assert "icd.contrast" in lines[1]
    assert "validation" in lines[1]
    for file in ("config.yaml", "result.json", "student.safetensors", "metrics.jsonl"):
        assert (work / "runs" / "first" / file).is_file()

    again = _distill(limbeck, "first")
    assert again.code == 2
    assert "--resume" in no_traceback(again)[0]


def test_json_alone_on_stdout(limbeck: Run, work: Path) -> None:
    said = _distill(limbeck, "json", "--json", "--objective", "kd")
    value = json.loads(said.out)
    assert value["objective"] == "0.1*ce() + 0.9*kd()"
    assert value["epochs"] == 2
    assert Path(value["folder"]) == Path("runs/json")
    assert value["test"]["accuracy"] > 0
    assert "epoch 2/2" in said.err
    quiet = _distill(limbeck, "quiet", "--quiet")
    assert quiet.err == ""
    assert "test accuracy" in quiet.out


def test_evaluate_export_and_inspect_a_run(limbeck: Run, work: Path) -> None:
    told = json.loads(limbeck("evaluate", "runs/teacher", "--teacher", "runs/teacher", "--json").out)
    value = told["networks"]["model"]
    result = json.loads((work / "runs/teacher/result.json").read_text())
    assert value["accuracy"] == pytest.approx(result["test"]["accuracy"])
    assert value["agreement"] == 1.0
    assert value["kl"] == pytest.approx(0, abs=1e-6)
    said = limbeck("evaluate", "runs/teacher/student.safetensors", "--split", "validation")
    assert "297 images of validation" in said.out
    assert "negative log likelihood" in said.out
    assert json.loads(limbeck("inspect", "runs/teacher", "--json").out)["input"] == [2, 1, 8, 8]
    exported = limbeck("export", "runs/teacher", "--to", "safetensors", "--to", "torch", "--output", "out", "--json")
    assert exported.code == 0, exported.err
    assert [file["format"] for file in json.loads(exported.out)["files"]] == ["safetensors", "torch"]


def test_report_compares_runs(limbeck: Run, work: Path) -> None:
    value = json.loads(limbeck("report", "runs/teacher", "--output", "page.html", "--json").out)
    assert value["rows"][0]["student"] == "convnet_tiny"
    assert (work / "page.html").is_file()
    assert value["tables"] == []
    assert "page.html" in limbeck("report", "runs/teacher", "--output", "page.html").out


def test_report_writes_its_table_in_four_formats(limbeck: Run, work: Path) -> None:
    words = ["report", "runs/teacher", "--output", "page.html", "--tables", "tables/new"]
    said = limbeck(*words, "--json")
    value = json.loads(said.out)
    assert [Path(path) for path in value["tables"]] == [
        Path("tables/new") / f"table{suffix}" for suffix in (".md", ".csv", ".tex", ".json")
    ]
    assert json.loads((work / "tables/new/table.json").read_text())["rows"] == value["rows"]
    assert "table.tex" in " ".join(limbeck(*words).out.split())
    (work / "taken").write_text("")
    refused = limbeck("report", "runs/teacher", "--output", "page.html", "--tables", "taken")
    assert refused.code == 2
    assert "the table cannot be written to" in no_traceback(refused)[0]


@pytest.fixture(scope="module")
def demo(trained: Path) -> dict[str, Any]:
    """What ``limbeck demo`` tells, with a small teacher and one objective."""
    words = ["--seeds", "1", "--epochs", "3", "--teacher", "convnet_tiny", "--objectives", "icd", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        said = said_in_this_process("demo", *words)
    assert said.code == 0, said.err
    told: dict[str, Any] = json.loads(said.out)
    return told


def test_demo_in_small(demo: dict[str, Any], trained: Path) -> None:
    assert "icd" in [row["label"] for row in demo["rows"]]
    evaluation = json.loads((trained / demo["folder"] / "students" / "evaluation.json").read_text())
    assert list(evaluation["networks"]) == ["alone-seed0", "kd-seed0", "icd-seed0", "teacher"]
    assert evaluation["networks"]["icd-seed0"]["method"] == "icd"
    assert evaluation["failures"] == {}
    parts = (
        "classification",
        "calibration",
        "fidelity",
        "retrieval",
        "robustness",
        "cost",
        "examples",
        "embedding_map",
    )
    assert [part for part in parts if not evaluation[part]] == []


@needs_browser
def test_the_page_of_the_demo_in_a_browser(demo: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    page = trained / demo["report"]
    evaluation = json.loads((trained / demo["folder"] / "students" / "evaluation.json").read_text())
    examples = sum(len(several) for several in evaluation["examples"].values())
    for one in look_at(page, tmp_path, 1200, 390):
        assert one["figures"] == one["seen"] > 20
        assert one["images"] == examples > 0
        assert one["requests"] == 0
        assert one["told"]
        assert one["fits"]


def test_a_plugin_of_ten_lines_trains(limbeck: Run, work: Path) -> None:
    (work / "my_loss.py").write_text(PLUGIN)
    said = _distill(limbeck, "plugin", "--objective", "ce + half_mse()", "--plugins", "my_loss.py", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["objective"] == "ce() + half_mse()"


def test_a_teacher_near_chance_is_refused(limbeck: Run, work: Path) -> None:
    said = limbeck("distill", "--teacher", "convnet_tiny", "--student", "convnet_tiny", "--name", "chance", "--quiet")
    assert said.code == 2
    assert "guessing gives 10.00%" in no_traceback(said)[0]
    assert not (work / "runs" / "chance").exists()
    options = ["--student", "convnet_tiny", "--epochs", "1", "--quiet", "--name", "chance", "--allow-weak-teacher"]
    assert limbeck("distill", "--teacher", "convnet_tiny", *options).code == 0


def _in_a_process(words: Sequence[str], out: Path, err: Path) -> None:
    torch.set_num_threads(1)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.exit(main(list(words)))


def test_a_stopped_run_is_saved_and_resumed(limbeck: Run, work: Path, tmp_path: Path, server: Any) -> None:
    words = ("distill", "--config", "recipe.yaml", "--name", "stopped", "--epochs", "9")
    out, err = tmp_path / "out", tmp_path / "err"
    process = server.Process(target=_in_a_process, args=(words, out, err))
    process.start()
    while not err.exists() or "epoch 2/" not in err.read_text():
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    assert process.exitcode == 130
    said = err.read_text()
    assert "saved in runs/stopped" in said
    assert "Traceback" not in said

    resumed = limbeck("distill", "--config", "runs/stopped/config.yaml", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resumed     at step" in resumed.err
    assert "epoch 9/9" in resumed.err
    assert "epoch 1/9" not in resumed.err


def test_a_resumed_run_keeps_its_settings(limbeck: Run, work: Path) -> None:
    assert _distill(limbeck, "kept", "--quiet").code == 0
    changed = _distill(limbeck, "kept", "--resume", "--lr", "0.3")
    assert changed.code == 2
    assert "lr: None then, 0.3 now" in no_traceback(changed)[0]
    assert limbeck("distill", "--config", "runs/kept/config.yaml", "--resume", "--quiet").code == 0

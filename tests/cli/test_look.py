"""The verbs that look: list, explain, inspect, doctor; as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.formula import readable
from limbeck.objectives import objectives

from .conftest import Run

PLUGIN = '''"""Ten lines are enough."""
from limbeck import Objective


class Half(Objective, name="half_mse", aliases=("hm",)):
    """Half of the squared distance of the logits."""

    needs = frozenset({"logits"})
    formula = r"\\frac{1}{2} (z^S - z^T)^2"

    def forward(self, student, teacher, batch):
        return {"half_mse": (student.logits - teacher.logits).square().mean() / 2}
'''


def _json(limbeck: Run, *words: str) -> Any:
    said = limbeck(*words, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_list_objectives_and_presets(limbeck: Run) -> None:
    rows = {row["name"]: row for row in _json(limbeck, "list", "objectives")}
    assert rows["icd"]["aliases"] == ["dcd"]
    assert rows["icd"]["batch_coupled"]
    assert rows["kd"]["needs"] == ["logits"]
    presets = {row["name"]: row["expression"] for row in _json(limbeck, "list", "presets", "icd*")}
    assert presets["icd+kd"] == "ce + icd() + kd(temperature=4)"
    assert "kd" not in presets
    said = limbeck("list", "objectives")
    assert "icd" in said.out
    assert "limbeck explain NAME" in said.err


def test_list_models_and_data(limbeck: Run) -> None:
    zoo = {row["name"]: row["parameters"] for row in _json(limbeck, "list", "models")}
    assert zoo["resnet8x4"] == 1_233_540
    assert [row["name"] for row in _json(limbeck, "list", "models", "zoo:resnet8x4")] == ["resnet8x4"]
    assert "digits" in [row["name"] for row in _json(limbeck, "list", "data")]
    assert "800 train" in limbeck("list", "data", "digits").out


@pytest.mark.parametrize("name", objectives())
def test_every_objective_can_be_explained(limbeck: Run, name: str) -> None:
    facts = _json(limbeck, "explain", name)
    assert facts["name"] == name
    assert facts["summary"]
    assert list(facts["arguments"]) == list(objectives()[name].defaults())
    undocumented = [argument for argument, about in facts["arguments"].items() if not about["what"]]
    assert undocumented == []
    shown = limbeck("explain", name)
    assert shown.code == 0
    assert "\\" not in "".join(facts["formula_text"])


def test_explain_icd_tells_all(limbeck: Run) -> None:
    out = limbeck("explain", "dcd").out
    for part in (
        "icd",
        "also dcd",
        "alpha = 0.5",
        "ℒ = -1/N ∑_i log p_ii",
        "Differences",
        "2407.11802",
        "icd+kd",
        "embedding",
    ):
        assert part in out
    assert r"\mathcal{L}" in _json(limbeck, "explain", "icd")["formula"]


def test_explain_a_preset_and_an_expression(limbeck: Run) -> None:
    said = limbeck("explain", "icd+kd")
    assert "stands for  ce + icd() + kd(temperature=4)" in said.out
    facts = _json(limbeck, "explain", "ce + 0.5*icd(alpha=1.0)")
    assert [part["weight"] for part in facts["parts"]] == [1.0, 0.5]
    assert facts["batch_coupled"]


def test_formulas_become_text() -> None:
    assert readable(r"\frac{a + b}{2N}") == ["(a + b)/2N"]
    assert readable(r"x^2, \quad \log p") == ["x²", "log p"]
    assert readable(r"\mathrm{KL}(q \,\|\, p)") == ["KL(q ‖ p)"]


def test_plugins_are_listed_and_explained(limbeck: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_loss.py"
    file.write_text(PLUGIN)
    listed = _json(limbeck, "list", "--plugins", str(file), "objectives")
    assert "half_mse" in [row["name"] for row in listed]
    assert "1/2 (z^S - z^T)²" in limbeck("explain", "hm", "--plugins", str(file)).out
    monkeypatch.setenv("LIMBECK_PLUGINS", f" {file} , json")
    assert limbeck("explain", "half_mse").code == 0


def test_inspect_names_taps_and_the_classifier(limbeck: Run) -> None:
    value = _json(limbeck, "inspect", "resnet8x4", "--classes", "10")
    modules = {module["path"]: module for module in value["modules"]}
    assert value["input"] == [2, 3, 32, 32]
    assert value["classifier"] == "fc"
    assert value["embedding"] == [2, 256]
    assert modules["layer1"]["shape"][:2] == [2, 64]
    assert modules["fc"]["shape"] == [2, 10]
    said = limbeck("inspect", "convnet_tiny", "--data", "digits", "--depth", "1")
    assert "input 2×1×8×8" in said.out
    assert "← its input is the embedding" in said.out
    assert "modules lie deeper; --depth 2 shows more" in said.out


def test_inspect_says_why_a_network_refuses(limbeck: Run) -> None:
    said = limbeck("inspect", "timm:vit_tiny_patch16_224(img_size=32)", "--image-size", "30")
    assert said.code == 2
    assert "Traceback" not in said.err


def test_doctor_looks_at_everything(limbeck: Run, tmp_path: Path) -> None:
    facts = _json(limbeck, "doctor", "--runs-dir", str(tmp_path / "new"), "--data-dir", str(tmp_path))
    assert facts["versions"]["torch"]
    assert facts["devices"][0]["device"] == "cpu"
    assert facts["extras"]["retrieval"]["install"] == "pip install 'limbeck[retrieval]'"
    assert facts["runs"]["writable"]
    assert not facts["runs"]["exists"]
    assert facts["data"]["exists"]
    said = limbeck("doctor")
    assert said.code == 0
    assert "GiB free" in said.out

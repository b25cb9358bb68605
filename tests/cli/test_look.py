"""The verbs that look: list, explain, inspect, doctor; as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.formula import readable
from limbeck.objectives import objectives
from limbeck.objectives.schedules import SCHEDULES

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
    inside = ["objective"] if objectives()[name].takes_objective else []
    assert list(facts["arguments"]) == [*inside, *objectives()[name].defaults()]
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


# -- methods with stages, papers and parentheses -----------------------------------------------------------------------


def test_list_objectives_tells_papers_presets_and_needs(limbeck: Run) -> None:
    rows = {row["name"]: row for row in _json(limbeck, "list", "objectives")}
    assert rows["ab"] == {
        "name": "ab",
        "aliases": [],
        "what": rows["ab"]["what"],
        "needs": ["preactivations"],
        "batch_coupled": True,
        "presets": ["ab", "ab+kd"],
        "paper": "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
        "link": "https://arxiv.org/abs/1811.03233",
        "year": 2019,
    }
    assert rows["fsp"]["link"] is None  # published, and not on arXiv
    assert rows["fsp"]["needs"] == ["features", "stem"]
    assert rows["ce"]["paper"] is None
    for name, cls in objectives().items():
        assert rows[name]["presets"] == list(cls.presets)
        assert rows[name]["needs"] == sorted(cls.needs)
        assert rows[name]["year"] == (cls.paper.year if cls.paper else None)
    # In a terminal the titles are too wide.
    shown = limbeck("list", "objectives").out
    assert "1811.03233" not in shown
    assert "2019" in shown


def test_explain_a_preset_that_trains_in_stages(limbeck: Run) -> None:
    assert _json(limbeck, "explain", "ab+kd")["stages"] == [
        {"what": "ab()", "epochs": 30, "trains": ["student", "objective"], "lr": None}
    ]
    said = limbeck("explain", "ab+kd")
    assert "First" in said.out
    assert "30 epochs: ab() (trains student and objective)" in said.out
    (stage,) = _json(limbeck, "explain", "ft+kd")["stages"]
    assert (stage["epochs"], stage["trains"], stage["lr"]) == (30, ["objective"], 0.01)
    assert stage["what"]
    assert "(trains objective, learning rate 0.01)" in limbeck("explain", "ft+kd").out
    assert "30 epochs" not in limbeck("explain", "ce + ab(init_epochs=0)").out
    assert _json(limbeck, "explain", "ce + ab(init_epochs=0)")["stages"] == []
    assert _json(limbeck, "explain", "icd+kd")["stages"] == []


def test_explain_an_objective_around_another(limbeck: Run) -> None:
    facts = _json(limbeck, "explain", "lskd")
    assert list(facts["arguments"]) == ["objective"]
    assert facts["arguments"]["objective"]["default"].startswith("kd(")
    assert facts["arguments"]["objective"]["what"]
    assert facts["presets"] == {"lskd": "0.1*ce + 9*lskd(kd(temperature=2))"}
    (_, around) = _json(limbeck, "explain", "ce + 9*lskd(dkd(beta=2) + kd)")["parts"]
    assert around["weight"] == 9
    assert around["expression"] == "lskd(dkd(beta=2) + kd())"
    said = limbeck("explain", "ce + lskd(kdd)")
    assert said.code == 2
    assert "did you mean 'kd'" in said.err


def test_explain_tells_the_paper(limbeck: Run) -> None:
    assert _json(limbeck, "explain", "fsp")["paper"] == {
        "title": "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
        "year": 2017,
        "venue": "CVPR",
        "link": None,
    }
    assert "CVPR, 2017" in limbeck("explain", "fsp").out
    assert "https://arxiv.org/abs/2203.14001" in limbeck("explain", "simkd").out


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_explained(limbeck: Run, name: str) -> None:
    facts = _json(limbeck, "explain", name)
    assert facts["summary"]
    assert [key for key, about in facts["arguments"].items() if not about["what"]] == []
    assert facts["use"].startswith(f"{name}(")
    shown = limbeck("explain", name)
    assert shown.code == 0
    assert "a weight that changes from epoch to epoch" in shown.out


def test_an_expression_shows_the_schedules_of_its_parts(limbeck: Run) -> None:
    weights = [part["weight"] for part in _json(limbeck, "explain", "ce + 0.5*decay(100, 0.7)*kd()")["parts"]]
    assert weights == [1.0, "0.5*decay(100, 0.7)"]
    assert "0.5*decay(100, 0.7) · kd()" in limbeck("explain", "ce + 0.5*decay(100, 0.7)*kd()").out


def test_explain_keeps_the_sign_between_a_weight_and_its_objective(limbeck: Run) -> None:
    said = limbeck("explain", "r2kd").out
    assert "2*r2kd()" in said
    assert "**" not in limbeck("explain", "rtk").out

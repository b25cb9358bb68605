"""The model card of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import limbeck
from limbeck.data import load_data
from limbeck.networks import read_card
from limbeck.report.card import model_card

from .conftest import make_result


def snippet(card: str) -> str:
    found = re.search(r"## Load it\n\n```python\n(.*?)```", card, flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    "model", ["convnet_tiny", "timm:vit_tiny_patch16_224(patch_size=4, depth=1, embed_dim=12)", "own"]
)
def test_the_lines_that_load_the_student_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 10)]
    data = load_data("digits", train_limit=64, test_limit=20)
    student: Any = nn.Sequential(*layers) if model == "own" else model
    done = limbeck.train(student, data, epochs=1, name="r", runs_dir=tmp_path)
    assert done.folder is not None
    code = snippet(model_card(done.result, data.classes, read_card(done.folder / "student.safetensors")))
    monkeypatch.chdir(done.folder)
    found: dict[str, Any] = {"network": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}
    exec(code, found)
    assert ("load_file" in code) == (model == "own")
    trained, network = done.student.state_dict(), found["network"]
    assert not network.training
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
    if model != "own":
        assert tuple(found["logits"].shape) == (1, 10)


def test_a_card_without_facts_names_what_it_knows() -> None:
    named = model_card(make_result("kd()", 0, 0.9, student="convnet_tiny"), ["a", "b"])
    assert "create_model('convnet_tiny@student.safetensors', num_classes=2)" in snippet(named)
    assert "load_file" in snippet(model_card(make_result("kd()", 0, 0.9, student="Net"), None))


def test_the_figure_that_chose_the_epoch_is_told() -> None:
    card = model_card(replace(make_result("kd()", 0, 0.9), judged={"ndcg_10": 0.25}), None)
    assert "| validation nDCG@10, best | 0.2500 |" in card
    assert "| validation accuracy in batch, of the best epoch |" in card


@pytest.mark.parametrize(
    ("task", "tag", "loader"),
    [
        ("causal", "text-generation", "AutoModelForCausalLM"),
        ("classification", "text-classification", "AutoModelForSequenceClassification"),
    ],
)
def test_a_card_of_a_network_on_text_says_so(task: str, tag: str, loader: str) -> None:
    facts = {"model": "hf:somebody/model", "modality": "text", "task": task}
    card = model_card(make_result("kl()", 0, 0.9, student="hf:somebody/model"), None, facts)
    assert f"tags: [{tag}, " in card
    assert "image" not in card
    code = snippet(card)
    assert f'{loader}.from_pretrained("deploy/model")' in code
    assert "limbeck export . --output deploy" in code


def test_a_card_tells_what_a_language_model_answered() -> None:
    test = {"count": 9, "accuracy": 0.5, "perplexity": 6.98, "exact_match": 0.25, "rouge_l": 0.125}
    taught = test | {"exact_match": 0.75, "perplexity": 3.0}
    facts = {"model": "llama(layers=1)", "modality": "text", "task": "causal"}
    card = model_card(make_result("kl()", 0, 0.9, test=test, teacher_test=taught), None, facts)
    for row in (
        "| test exact match | 25.00% |",
        "| teacher's test exact match | 75.00% |",
        "| test ROUGE-L | 12.50% |",
        "| test token accuracy | 50.00% |",
        "| test perplexity | 6.98 |",
        "| teacher's test perplexity | 3 |",
    ):
        assert row in card

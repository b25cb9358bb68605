"""Drawing language models and encoders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from search_training import STUDENT, encoder
from text_training import STUDENT as LANGUAGE
from text_training import network

from limbeck.models import save_weights

from .conftest import Run


def test_a_language_model_is_drawn(limbeck: Run, tmp_path: Path) -> None:
    tokenizer = {"kind": "characters", "alphabet": "0123456789+-="}
    facts = {
        "model": LANGUAGE,
        "modality": "text",
        "task": "causal",
        "tokenizer": tokenizer,
        "max_length": 12,
        "context": 32,
    }
    module = network(LANGUAGE)
    save_weights(module, tmp_path / "student.safetensors", {"format": "pt", "limbeck": json.dumps(facts)})
    said = limbeck("inspect", str(tmp_path), "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert value["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert (value["kind"], value["width"], value["context"]) == ("causal", 15, 32)
    assert value["layers"] == ["model.layers.0"]
    assert value["classifier"] == "lm_head"
    assert value["embedding"] == [2, 12, 16]
    assert (value["tokenizer"]["tokens"], value["tokenizer"]["end"]) == (15, 1)
    # By hand: keys and values of a layer, 16 numbers of 4 bytes each.
    assert value["cost"]["cache_bytes_per_token"] == 2 * 16 * 4
    assert value["cost"]["macs_per_token"] > 15 * 16
    drawn = limbeck("inspect", str(tmp_path)).out
    assert "layer 0" in drawn
    assert "its input is the embedding" in drawn
    refused = limbeck("inspect", str(tmp_path), "--classes", "3")
    assert refused.code == 2
    assert "classes is for networks on images" in refused.err


def test_an_encoder_is_drawn(limbeck: Run, tmp_path: Path) -> None:
    encoder(STUDENT).save(tmp_path / "encoder")
    said = limbeck("inspect", str(tmp_path / "encoder"), "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert (value["kind"], value["width"], value["similarity"], value["layers"]) == ("search", 16, "cosine", [])
    shapes = {module["path"]: module["shape"] for module in value["modules"]}
    assert (shapes["model.0"], shapes["model.1"]) == ([2, 16, 16], [2, 16])
    drawn = limbeck("inspect", str(tmp_path / "encoder")).out
    assert "nothing inside is tapped" in drawn
    assert "for taps" not in drawn

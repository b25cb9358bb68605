"""Encoders and language models as folders and ONNX: each loads in the other library, and gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from search_training import STUDENT, collection, encoder
from text_training import STUDENT as LANGUAGE
from text_training import network

from limbeck.config import ExportSettings
from limbeck.errors import SettingError
from limbeck.export import ExportError, run_export
from limbeck.models import save_weights
from limbeck.models.language import create_language_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder's folder."""
    return encoder(STUDENT, 2).save(tmp_path_factory.mktemp("encoders") / "encoder")


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The encoder in all its formats, made once for all tests that only read them."""
    output = tmp_path_factory.mktemp("exported") / "out"
    return output, _export(folder, output)


def _file(path: Path, module: torch.nn.Module, **facts: Any) -> Path:
    """A file as limbeck writes it."""
    alphabet = {"kind": "characters", "alphabet": "0123456789+-="}
    known = {"data": "sums", "modality": "text", "tokenizer": alphabet, "max_length": 12, "context": 32, **facts}
    save_weights(module, path, {"format": "pt", "limbeck": json.dumps(known)})
    return path


def _export(model: Path, output: Path, **given: Any) -> Any:
    return run_export(ExportSettings.make({"model": str(model), "output": output, **given}), say=lambda line: None)


def test_an_encoder_gives_the_same_vectors_everywhere(folder: Path, exported: tuple[Path, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    output, found = exported
    assert [file.format for file in found.files] == ["folder", "onnx"]
    assert all(file.difference <= 1e-4 for file in found.files)
    assert (found.kind, found.width, found.similarity) == ("search", 16, "cosine")
    texts = list(collection().queries.texts[:5])
    wanted = SentenceTransformer(str(folder), device="cpu").encode(texts)
    made = SentenceTransformer(str(output / "encoder"), device="cpu")
    np.testing.assert_array_equal(made.encode(texts), wanted)
    inputs = made.tokenizer([*texts, "w1"], padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(str(output / "student.onnx"), providers=["CPUExecutionProvider"])
    given = {node.name: inputs[node.name].astype(np.int64) for node in session.get_inputs()}
    assert {"input_ids", "attention_mask"} <= set(given)
    (vectors,) = session.run(["sentence_embedding"], given)
    np.testing.assert_allclose(vectors[:5], wanted, atol=1e-5)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["limbeck"])
    assert facts["similarity"] == "cosine"


def test_the_card_loads_what_it_lies_beside(exported: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    output, _ = exported
    parts = (output / "README.md").read_text().split("```python\n")[1:]
    monkeypatch.chdir(output)
    for part in parts:
        exec(part.partition("```")[0], {})
    assert len(parts) == 2


def test_a_language_model_becomes_a_folder_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    module = network(LANGUAGE, 2)
    file = _file(tmp_path / "student.safetensors", module, model=LANGUAGE, task="causal")
    found = _export(file, tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["README.md", "model"]
    assert (found.kind, found.tokenizer) == ("causal", False)
    tokens = torch.arange(2, 9)[None]
    with torch.no_grad():
        wanted = module.eval()(input_ids=tokens).logits
        given = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").eval()(input_ids=tokens).logits
    torch.testing.assert_close(given, wanted, rtol=0, atol=0)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "'0123456789+-='" in card
    with pytest.raises(SettingError, match="causal language models are written as a folder alone"):
        _export(file, tmp_path / "other", to=["onnx"])
    assert not (tmp_path / "other").exists()


def test_a_classifier_of_text_becomes_a_folder_and_onnx(tmp_path: Path) -> None:
    name = "bert(layers=1, width=16, heads=2)"
    torch.manual_seed(0)
    module = create_language_model(
        name, task="classification", vocabulary=15, num_classes=2, context=12, pad=0, end=1
    ).network
    facts = {"model": name, "task": "classification", "classes": ["bad", "good"], "context": 12}
    found = _export(_file(tmp_path / "student.safetensors", module, **facts), tmp_path / "out")
    assert [file.format for file in found.files] == ["folder", "onnx"]
    assert found.classes == ("bad", "good")
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}


def test_what_is_for_images_is_refused_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="include_preprocessing is for networks on images"):
        _export(folder, tmp_path / "out", include_preprocessing=True)
    with pytest.raises(
        SettingError, match="to: 'torch' is for networks on images; this one is written as folder, onnx"
    ):
        _export(folder, tmp_path / "out", to=["torch"])
    assert not (tmp_path / "out").exists()


def test_a_difference_that_is_too_large_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.export import text

    monkeypatch.setattr(text, "open_text_onnx", lambda path: lambda inputs: torch.zeros(len(inputs["input_ids"]), 16))
    with pytest.raises(ExportError, match="onnx: the embeddings of the written file differ"):
        _export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()

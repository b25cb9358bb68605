"""An encoder of some layers as a folder: all else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders need sentence-transformers")

from limbeck.data.search import word_tokenizer
from limbeck.errors import SettingError
from limbeck.models.encoders import create_encoder, is_pipeline, prune_encoder

TEXTS = ["wings bend in the wind", "steel", "the wind"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = create_encoder(
        "bert(layers=3, width=16, heads=2, project=8)", tokenizer=word_tokenizer(TEXTS), max_length=10
    )
    made.encoder.model.prompts["query"] = "steel "
    return made.encoder.save(tmp_path_factory.mktemp("encoders") / "teacher")


def test_layers_go_and_all_else_stays(teacher: Path, tmp_path: Path) -> None:
    pruned = prune_encoder(f"hf:{teacher}", [0, 2], tmp_path / "student")
    assert (pruned.layers, pruned.kept, pruned.task) == ((3, 2), (0, 2), "encoder")
    assert pruned.parameters[1] < pruned.parameters[0]
    assert is_pipeline(tmp_path / "student")
    from sentence_transformers import SentenceTransformer

    student = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert student.prompts["query"] == "steel "
    kept = create_encoder(f"hf:{teacher}(keep_layers=[0, 2])").encoder.model
    assert torch.equal(student.encode(TEXTS, convert_to_tensor=True), kept.encode(TEXTS, convert_to_tensor=True))
    assert torch.allclose(student.encode(TEXTS, convert_to_tensor=True).norm(dim=1), torch.ones(3))


def test_nothing_is_lost(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="the folder of the model itself"):
        prune_encoder(f"hf:{teacher}", [0], teacher, overwrite=True)
    prune_encoder(f"hf:{teacher}", [0], tmp_path / "student")
    with pytest.raises(SettingError, match="exists"):
        prune_encoder(f"hf:{teacher}", [1], tmp_path / "student")
    pruned = prune_encoder(f"hf:{teacher}", [0, 1], tmp_path / "student", overwrite=True)
    assert create_encoder(f"hf:{tmp_path}/student").encoder.model[0].auto_model.config.num_hidden_layers == 2
    assert pruned.layers == (3, 2)

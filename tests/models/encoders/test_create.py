"""Encoders from the text that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders are made with the package sentence-transformers")

from limbeck.data.search import Tokenising, word_tokenizer
from limbeck.errors import SettingError, WeightsError
from limbeck.evaluate.search import embed
from limbeck.models import save_weights
from limbeck.models.encoders import Encoder, create_encoder, encoder_of

TEXTS = ["wings bend in the wind", "steel", "the wind"]
SMALL = "bert(layers=3, width=16, heads=2)"


def made(spec: str, **given: Any) -> Encoder:
    torch.manual_seed(0)
    return create_encoder(spec, tokenizer=word_tokenizer(TEXTS), max_length=10, **given).encoder


def vectors(encoder: Encoder) -> torch.Tensor:
    return embed(encoder, Tokenising(encoder.tokenizer, encoder.max_length)(TEXTS))


def test_one_is_made_in_place_from_the_seed_alone() -> None:
    first, second = made(SMALL), made(SMALL)
    assert torch.equal(vectors(first), vectors(second))
    assert (first.width, first.max_length, first.similarity) == (16, 10, "cosine")
    assert torch.allclose(vectors(first).norm(dim=1), torch.ones(3))
    products = made(SMALL, similarity="dot")
    assert products.similarity == "dot"
    assert not torch.allclose(vectors(products).norm(dim=1), torch.ones(3), atol=1e-2)


def test_weights_of_a_file_are_put_in(tmp_path: Path) -> None:
    encoder = made(SMALL)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.5)
    save_weights(encoder, tmp_path / "student.safetensors", {"format": "pt"})
    again = create_encoder(
        f"{SMALL}@{tmp_path / 'student.safetensors'}", tokenizer=word_tokenizer(TEXTS), max_length=10
    )
    assert again.name == SMALL
    assert torch.equal(vectors(again.encoder), vectors(encoder))


def test_layers_of_a_folder_are_kept_and_its_width_changed(tmp_path: Path) -> None:
    whole = made(SMALL)
    folder = whole.save(tmp_path / "whole")
    created = create_encoder(f"hf:{folder}(keep_layers=[0, 2], project=5)")
    assert created.published
    assert created.encoder.width == 5
    own, theirs = created.encoder.state_dict(), whole.state_dict()
    for name, value in own.items():
        if ".layer." in name:
            assert torch.equal(value, theirs[name.replace("layer.1.", "layer.2.")]), name
    again = create_encoder(f"hf:{created.encoder.save(tmp_path / 'half')}").encoder
    assert torch.equal(vectors(again), vectors(created.encoder))


def test_modules_are_taken_and_others_refused() -> None:
    encoder = made(SMALL)
    assert encoder_of(encoder) is encoder
    assert torch.equal(vectors(encoder_of(encoder.model)), vectors(encoder))
    with pytest.raises(WeightsError, match="Linear is no encoder of texts"):
        encoder_of(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("hf:nowhere", "there is no folder"),
        ("hf:nowhere(keep_layer=[0])", "did you mean 'keep_layers'"),
        (f"{SMALL}@pretrained", "weights are a file here"),
        ("brt(layers=1)", "bert"),
    ],
)
def test_what_cannot_be_made(spec: str, told: str) -> None:
    with pytest.raises((SettingError, WeightsError), match=told):
        made(spec)
    with pytest.raises(SettingError, match="has no tokenizer of its own"):
        create_encoder(SMALL)

"""The text that names a model, taken apart."""

from __future__ import annotations

import pytest

from limbeck.errors import SettingError
from limbeck.models.spec import ModelSpec, parse_spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet8x4", ModelSpec("resnet8x4", "zoo", "resnet8x4", {}, None)),
        (" resnet8 @ a b.pth ", ModelSpec("resnet8", "zoo", "resnet8", {}, "a b.pth")),
        ("zoo:resnet8", ModelSpec("zoo:resnet8", "zoo", "resnet8", {}, None)),
        (
            "convnet(widths=[8,16])@w@x:(y).pt",
            ModelSpec("convnet(widths=[8,16])", "zoo", "convnet", {"widths": [8, 16]}, "w@x:(y).pt"),
        ),
        ("resnet8@C:/weights.pt", ModelSpec("resnet8", "zoo", "resnet8", {}, "C:/weights.pt")),
        (
            "timm:resnet50.a1_in1k(drop_rate=0.1)@pretrained",
            ModelSpec(
                "timm:resnet50.a1_in1k(drop_rate=0.1)", "timm", "resnet50.a1_in1k", {"drop_rate": 0.1}, "pretrained"
            ),
        ),
        (
            "my_package.nets:make_net(note='a)@b', width=3)@f.safetensors",
            ModelSpec(
                "my_package.nets:make_net(note='a)@b', width=3)",
                "module",
                "my_package.nets:make_net",
                {"note": "a)@b", "width": 3},
                "f.safetensors",
            ),
        ),
        ("hf:google/vit-base", ModelSpec("hf:google/vit-base", "hf", "google/vit-base", {}, None)),
    ],
)
def test_parts_of_a_text(text, expected):
    assert parse_spec(text) == expected


def test_an_existing_folder_may_hold_any_character(tmp_path):
    folder = tmp_path / "run@home (2)"
    folder.mkdir()
    assert parse_spec(f"hf:{folder}").name == str(folder)
    with_weights = parse_spec(f"hf:{folder}(hidden_size=8)@w.pth")
    assert (with_weights.name, with_weights.arguments, with_weights.weights) == (
        str(folder),
        {"hidden_size": 8},
        "w.pth",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no name"),
        ("timm:", "has no name"),
        ("@weights.pth", "has no name"),
        ("resnet8@", "names no weights after '@'"),
        ("convnet(8)", "cannot be read|given by name"),
        ("convnet(resnet8)", "arguments are given by name"),
        ("convnet(widths=open('x'))", "an argument is a number"),
        ("convnet(widths=[8,16]", "cannot be read"),
        ("convnet(widths=[8])x", "cannot be read"),
    ],
)
def test_a_text_that_cannot_be_read_says_why(text, message):
    with pytest.raises(SettingError, match=message):
        parse_spec(text)

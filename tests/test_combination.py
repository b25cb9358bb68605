"""Teachers of several networks: their text, and real runs with each rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import limbeck
from limbeck.combination import Combination, parse_combination
from limbeck.data import ImageData, Preprocess, load_data
from limbeck.errors import CacheError, SettingError, SignalError, WeightsError
from limbeck.models import create_model
from limbeck.networks import card
from limbeck.teachers.rules import Mean, Routed

SETTINGS = {"epochs": 1, "allow_weak_teacher": True}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=60)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, data: ImageData) -> tuple[str, str]:
    """Two teachers by name: a small one and a larger one."""
    folder, texts = tmp_path_factory.mktemp("teachers"), []
    for name in ("convnet_tiny", "convnet(widths=[8, 16])"):
        torch.manual_seed(len(name))
        network = create_model(name, num_classes=10, in_channels=1, image_size=8).network
        path = folder / f"{len(name)}.safetensors"
        save_file(network.state_dict(), path, metadata=card(name, data, Preprocess(data.mean, data.std)))
        texts.append(f"{name}@{path}")
    return texts[0], texts[1]


def test_text_and_combination_are_the_same() -> None:
    text = "mean(runs/one, convnet(widths=[8, 16])@a,b=c.safetensors, weights=[2, 1], of='probabilities')"
    # A comma in a path is one between teachers: such a path is named from its folder.
    found = parse_combination(
        "mean(runs/one, convnet(widths=[8, 16])@w.safetensors, weights=[2, 1], of='probabilities')"
    )
    assert found is not None
    assert found.members == ("runs/one", "convnet(widths=[8, 16])@w.safetensors")
    assert (found.rule.name, str(found.rule)) == ("mean", "weights=[2, 1], of='probabilities'")
    again = parse_combination(str(found))
    assert again is not None
    assert str(again) == str(found)
    assert parse_combination("convnet(widths=[8, 16])@w") is None
    assert parse_combination("runs/mean") is None
    with pytest.raises(SettingError):
        parse_combination(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mean(a, b, weight=[1, 2])", "unknown argument of mean 'weight'; did you mean 'weights'"),
        ("best(a, b, of='logits')", "unknown argument of best 'of'"),
        ("mean(a, vote(b, c))", "is a combination itself"),
        ("mean(a,, b)", "nothing stands between two of the commas"),
        ("routed(a, b, order='backwards')", "order: unknown value"),
    ],
)
def test_text_that_cannot_be_used(text: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        parse_combination(text)


RULES = ["mean({0}, {1})", "vote({0}, {1})", "best({0}, {1})", "pruned_mix({1})", "routed({0}, {1}, pacing=0)"]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_teaches_and_resumes_to_the_same_end(
    rule: str, weights: tuple[str, str], data: ImageData, tmp_path: Path
) -> None:
    text = rule.format(*weights)
    whole = limbeck.distill(text, "convnet_tiny", data, "kd", **(SETTINGS | {"epochs": 2}))
    assert whole.result.teacher == re.sub(r"@[^,)]+", "", text)  # without the files of the weights, as of one teacher
    assert whole.result.teacher_parameters > 1442
    again = limbeck.distill(text, "convnet_tiny", data, "kd", **(SETTINGS | {"epochs": 2}))
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[name])


def test_one_expert_twice_is_that_teacher_alone(weights: tuple[str, str], data: ImageData) -> None:
    alone = limbeck.distill(weights[1], "convnet_tiny", data, "icd+kd", **SETTINGS)
    for text in (
        f"routed({weights[1]}, {weights[1]})",
        f"mean({weights[1]}, {weights[1]})",
        f"best({weights[1]}, {weights[1]})",
    ):
        twice = limbeck.distill(text, "convnet_tiny", data, "icd+kd", **SETTINGS)
        assert twice.result.teacher_test == pytest.approx(alone.result.teacher_test, rel=1e-5)
        for name, value in alone.student.state_dict().items():
            assert torch.allclose(value.float(), twice.student.state_dict()[name].float(), atol=1e-5), (text, name)


def test_a_cache_keeps_what_does_not_change_over_time(
    weights: tuple[str, str], data: ImageData, tmp_path: Path
) -> None:
    options = SETTINGS | {"views": 1, "cache_dtype": "fp32"}
    text = f"best({weights[0]}, {weights[1]})"
    live = limbeck.distill(text, "convnet_tiny", data, "kd", **options)
    kept = limbeck.distill(text, "convnet_tiny", data, "kd", teacher_cache=tmp_path / "cache", **options)
    assert kept.result.test == pytest.approx(live.result.test, rel=1e-3)
    other, routed = (f"{rule}({weights[0]}, {weights[1]})" for rule in ("mean", "routed"))
    with pytest.raises(CacheError, match="The teachers beside the first"):
        limbeck.distill(other, "convnet_tiny", data, "kd", teacher_cache=tmp_path / "cache", **options)
    with pytest.raises(SettingError, match="change from epoch to epoch"):
        limbeck.distill(routed, "convnet_tiny", data, "kd", teacher_cache=tmp_path / "new", **options)


def test_networks_of_your_own(data: ImageData) -> None:
    def linear(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    both = Combination(Mean(), (linear(10), linear(10)))
    found = limbeck.distill(both, "convnet_tiny", data, "kd", **SETTINGS)
    assert found.result.teacher == "mean(Sequential, Sequential)"
    with pytest.raises(SignalError, match="teacher 1 10, teacher 2 7"):
        limbeck.distill(Combination(Mean(), (linear(10), linear(7))), "convnet_tiny", data, "kd", **SETTINGS)
    large = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 10))
    with pytest.raises(SettingError, match="from small to large"):
        limbeck.distill(Combination(Routed(), (large, linear(10))), "convnet_tiny", data, "kd", **SETTINGS)


def test_classes_in_another_order_are_refused(data: ImageData, tmp_path: Path) -> None:
    from dataclasses import replace

    turned = replace(data, classes=tuple(reversed(data.classes)))
    network = create_model("convnet_tiny", num_classes=10, in_channels=1, image_size=8).network
    path = tmp_path / "turned.safetensors"
    save_file(network.state_dict(), path, metadata=card("convnet_tiny", turned, Preprocess(data.mean, data.std)))
    with pytest.raises(WeightsError, match="same classes in another order: class 0 is '9' there and '0'"):
        limbeck.distill(f"convnet_tiny@{path}", "convnet_tiny", data, "kd", **SETTINGS)


def test_many_students_of_several_teachers(weights: tuple[str, str], data: ImageData) -> None:
    found = limbeck.compare(f"mean({weights[0]}, {weights[1]})", "convnet_tiny", data, "kd, icd", seeds=1, **SETTINGS)
    assert len(found.results) == 3
    assert not found.failures

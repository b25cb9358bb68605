"""Networks with their taps and preprocessing, as a run opens them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import limbeck
from limbeck.data import ImageData, Preprocess, load_data
from limbeck.errors import SettingError, TapError, WeightsError
from limbeck.models import CreatedModel, InputSpec, create_model, save_weights
from limbeck.networks import Network, card, open_network, read_card, resolve, share_preprocess
from limbeck.signals import Batch
from limbeck.taps import Tapped


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=50)


def opened(model: Any, data: ImageData | None, **options: Any) -> Network:
    assert data is not None
    probe = Batch(data.train.images[:2], data.train.labels[:2])
    defaults = {"who": "teacher", "probe": probe, "device": torch.device("cpu"), "classifier": None}
    return open_network(model, data=data, **{**defaults, **options})


def test_the_data_gives_the_normalisation_of_a_random_network(data: ImageData) -> None:
    network = opened("convnet_tiny", data)
    assert isinstance(network.preprocess, Preprocess)
    assert network.preprocess.settings[:3] == (data.mean, data.std, None)
    assert network.tapped.classifier == "classifier"


def test_weights_bring_their_own_normalisation_along(data: ImageData, tmp_path: Path) -> None:
    created = create_model("convnet_tiny", num_classes=10, in_channels=1)
    own = Preprocess((0.25,), (0.5,), 12)
    save_weights(created.network, tmp_path / "w.safetensors", card("convnet_tiny", data, own))
    network = opened(f"convnet_tiny@{tmp_path / 'w.safetensors'}", data)
    assert isinstance(network.preprocess, Preprocess)
    assert network.preprocess.settings[:3] == ((0.25,), (0.5,), (12, 12))


def test_a_network_says_what_it_was_trained_on(data: ImageData) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network.input_spec = InputSpec((0.25,), (0.5,), None, "bilinear")  # type: ignore[assignment]  # no module
    found = opened(network, data).preprocess
    images = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    assert found(images).unique().item() == pytest.approx(1.5)
    network.input_spec = (0.25, 0.5)  # type: ignore[assignment]
    with pytest.raises(SettingError, match=r"input_spec of Sequential must be a limbeck.models.InputSpec"):
        opened(network, data)


def test_a_size_asked_for_wins(data: ImageData) -> None:
    network = opened("convnet_tiny", data, image_size=16)
    assert network.preprocess(data.train.images[:2]).shape == (2, 1, 16, 16)


def test_equal_preprocessing_is_done_once(data: ImageData) -> None:
    one, two, other = (opened("convnet_tiny", data, image_size=size) for size in (None, None, 16))
    assert share_preprocess(one, two) is one.preprocess
    assert share_preprocess(one, other) is other.preprocess
    plain = [Network("own", Tapped(nn.Linear(2, 2)), nn.Identity()) for _ in range(2)]
    assert share_preprocess(*plain) is plain[0].preprocess


def test_teacher_and_student_may_see_the_same_view_at_other_sizes(data: ImageData) -> None:
    done = limbeck.distill(
        "timm:resnet10t", "convnet_tiny", data, epochs=1, batch_size=32, teacher_size=16, allow_weak_teacher=True
    )
    assert done.result.teacher == "timm:resnet10t"
    assert done.result.test is not None


def test_gradient_checkpointing_changes_no_weight(data: ImageData) -> None:
    states = []
    for checkpointing in (False, True):
        done = limbeck.distill(
            "convnet_tiny",
            "timm:vit_tiny_patch16_224(img_size=8, patch_size=4, depth=2, embed_dim=24)",
            data,
            epochs=1,
            batch_size=32,
            allow_weak_teacher=True,
            gradient_checkpointing=checkpointing,
        )
        states.append(done.student.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


def test_a_run_folder_or_a_file_of_ours_names_its_network(data: ImageData, tmp_path: Path) -> None:
    done = limbeck.train("convnet(widths=[4])", data, epochs=1, name="run", runs_dir=tmp_path)
    assert done.folder is not None
    file = done.folder / "student.safetensors"
    assert resolve(str(done.folder)) == resolve(str(file)) == f"convnet(widths=[4])@{file}"
    assert resolve("resnet8@x.pth") == "resnet8@x.pth"
    assert read_card(file)["classes"] == list(data.classes)
    assert opened(str(done.folder), data).name == "convnet(widths=[4])"


def test_what_is_no_run_or_no_file_of_ours_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a folder without student"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").touch()
    with pytest.raises(SettingError, match=f"named hf:{tmp_path}"):
        resolve(str(tmp_path))
    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(SettingError, match="does not say which network"):
        resolve(str(tmp_path / "foreign.safetensors"))


def test_a_teacher_with_a_random_classifier_is_refused(data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a source returns for published weights of other classes; the weights themselves cannot be fetched in a test.
    def published(spec: str, **sizes: Any) -> CreatedModel:
        network = create_model("convnet_tiny", num_classes=10, in_channels=1).network
        spec_of_input = InputSpec((0.5,), (0.5,), None, "bilinear")
        return CreatedModel(network, "timm:resnet10t", "pretrained", spec_of_input, new_classifier=True)

    monkeypatch.setattr("limbeck.networks.create_model", published)
    with pytest.raises(WeightsError, match="its classifier would be random"):
        opened("timm:resnet10t@pretrained", data)
    assert opened("timm:resnet10t@pretrained", data, who="student").name == "timm:resnet10t"


VIT = "timm:vit_tiny_patch16_224(patch_size=4, depth=1, embed_dim=12)"


@pytest.mark.parametrize("size", [(12, 12), None])
def test_a_network_is_reopened_at_the_size_of_its_weights(
    data: ImageData, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    # Resized from the data's 8 pixels as published weights are, or trained on images of another size.
    created = create_model(VIT, num_classes=10, in_channels=1, image_size=12)
    trained_on = data if size else replace(data, image_size=(12, 12))
    own = Preprocess((0.25,), (0.5,), size)
    save_weights(created.network, tmp_path / "w.safetensors", card(VIT, trained_on, own))
    network = opened(str(tmp_path / "w.safetensors"), data)
    assert network.preprocess(data.train.images[:2]).shape == (2, 1, 12, 12)
    assert network.tapped.classifier == "head"


def test_an_embedding_that_nobody_needs_is_not_looked_for(data: ImageData) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.GLU())
    with pytest.raises(TapError, match="student_classifier or teacher_classifier"):
        opened(network, data)
    assert opened(network, data, embedding=False).tapped.classifier is None
    assert opened(network, data, embedding=False, classifier="1").tapped.classifier == "1"


@pytest.mark.parametrize("embedding", [True, False])
def test_a_network_that_cannot_take_the_images_is_a_sentence(data: ImageData, embedding: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(65, 10))
    with pytest.raises(
        SettingError, match=r"teacher: Sequential cannot take an input of shape \(2, 1, 8, 8\) \(Runtime"
    ):
        opened(network, data, embedding=embedding)


@pytest.mark.parametrize("model", ["timm:resnet10t(in_chans=3)", "convnet_tiny(in_channels=3)"])
def test_grey_images_are_repeated_for_a_network_of_three_channels(data: ImageData, tmp_path: Path, model: str) -> None:
    network = opened(model, data)
    assert network.preprocess(data.train.images[:2]).shape == (2, 3, 8, 8)
    file = tmp_path / "w.safetensors"
    save_weights(network.tapped.network, file, card(model, data, network.preprocess))
    again = opened(str(file), data)
    assert share_preprocess(network, again) is network.preprocess


def test_a_network_that_repeats_grey_images_itself_is_left_to_it(data: ImageData) -> None:
    class Repeats(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images.repeat(1, 3, 1, 1))

    network = opened(Repeats(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)), data)
    assert network.preprocess(data.train.images[:2]).shape == (2, 1, 8, 8)


def test_a_teacher_of_a_run_and_a_student_by_name_share_one_preprocess(data: ImageData, tmp_path: Path) -> None:
    done = limbeck.train("convnet(widths=[4])", data, epochs=1, name="run", runs_dir=tmp_path)
    student, teacher = opened("convnet_tiny", data, who="student"), opened(str(done.folder), data)
    assert share_preprocess(student, teacher) is student.preprocess


def test_a_card_is_read_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors", card("mine", None, nn.Identity()))
    assert read_card("~/w.safetensors") == {"model": "mine"}

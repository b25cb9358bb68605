"""Networks with their taps and preprocessing, as a run opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import limbeck
from limbeck.data import ImageData, Preprocess, load_data
from limbeck.errors import SettingError, WeightsError
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
    defaults = {"who": "teacher", "probe": probe, "device": torch.device("cpu"), "features": {}, "classifier": None}
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

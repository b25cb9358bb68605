from __future__ import annotations

import pytest
import torch

from limbeck.data import Preprocess
from limbeck.errors import SettingError

from .conftest import pixels

IMAGES = torch.from_numpy(pixels(5, 2, 3, 8, 8))


def test_equals_torchvision() -> None:
    from torchvision.transforms.v2 import functional as F

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    expected = F.normalize(F.to_dtype(IMAGES, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(Preprocess(mean, std)(IMAGES), expected)


def test_floats_are_not_scaled_and_not_changed() -> None:
    values = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    before = values.clone()
    torch.testing.assert_close(Preprocess((0.5,), (2.0,))(values), ((values - 0.5) / 2).float())
    assert torch.equal(values, before)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize(interpolation: str) -> None:
    grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    out = Preprocess(size=(4, 6), interpolation=interpolation)(grey)
    torch.testing.assert_close(out, torch.full((1, 3, 4, 6), 0.2))
    assert Preprocess(size=16)(grey).shape == (1, 3, 16, 16)


def test_grey_is_repeated() -> None:
    out = Preprocess((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))(IMAGES[:, :1])
    assert out.shape == IMAGES.shape
    torch.testing.assert_close(out[:, 0] - out[:, 2], torch.full((2, 8, 8), 0.2))
    assert Preprocess((0.1,), (1.0,), channels=3)(IMAGES[:, :1]).shape == IMAGES.shape
    assert Preprocess((0.1,), (1.0,))(IMAGES[:, :1]).shape == (2, 1, 8, 8)


def test_settings_and_state() -> None:
    one, two = Preprocess((0.5,), (1,), size=8), Preprocess([0.5], [1.0], size=(8, 8))
    assert one.settings == two.settings
    assert one.settings != Preprocess((0.5,), (2,), size=8).settings
    assert hash(one.settings) == hash(two.settings)
    assert not one.state_dict()
    assert "bilinear" in repr(one)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mean": (0.1, 0.2), "std": (1.0,)}, "got 2 and 1"),
        ({"mean": (0.1, 0.2), "std": (1.0, 1.0), "channels": 3}, "1 or 3 values"),
        ({"std": (0.0,)}, "std must be greater than 0"),
        ({"interpolation": "bilinea"}, "did you mean 'bilinear'"),
    ],
)
def test_setting_errors(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        Preprocess(**settings)  # type: ignore[arg-type]


def test_input_errors() -> None:
    with pytest.raises(SettingError, match="takes images of 1 channels, got 3"):
        Preprocess(channels=1)(IMAGES)
    with pytest.raises(SettingError, match="uint8 or floating"):
        Preprocess()(IMAGES.long())

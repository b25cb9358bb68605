"""Corruptions change images more and more, alike each time, whatever their size and channels."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limbeck.data import ImageData, Preprocess
from limbeck.errors import SettingError
from limbeck.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def photo(side: int, channels: int) -> Tensor:
    """Smooth shapes with an edge and some grain."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    planes = [0.5 + 0.3 * torch.sin(6 * x + phase) * torch.cos(5 * y) + 0.15 * (x > y) for phase in range(channels)]
    grain = 0.02 * torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    return ((torch.stack(planes) + grain).clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (65, 3)])
def test_severity_changes_more_and_more(name: str, side: int, channels: int) -> None:
    images = photo(side, channels)
    changed = [corrupt(images, name, severity) for severity in SEVERITIES]
    errors = [(each.float() - images.float()).square().mean().item() for each in changed]
    assert all(each.shape == images.shape and each.dtype == torch.uint8 for each in changed)
    assert errors[0] > 0
    assert errors[-1] > 1.5 * errors[0]
    # On one image a step may fall back a little; pixelation of eight pixels has few sizes to choose from.
    assert all(later > 0.6 * earlier for earlier, later in pairwise(errors))
    assert torch.equal(changed[2], corrupt(images, name, 3))


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise"])
def test_noise_depends_on_the_seed(name: str) -> None:
    images = photo(16, 3)
    assert not torch.equal(corrupt(images, name, 3, seed=1), corrupt(images, name, 3, seed=2))


def test_a_blur_is_that_of_the_whole_kernel_and_keeps_flat_images() -> None:
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    for name in ("gaussian_blur", "box_blur", "contrast", "pixelate", "jpeg_like"):
        assert (corrupt(flat, name, 5).int() - 77).abs().max() <= 6, name
    dot = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    dot[..., 10, 10] = 255
    # A square of 3.36 pixels: 1, 1, 1 and two edges of 0.18, over its area.
    spread = corrupt(dot, "box_blur", 5)[0, 0, 10].float() / 255
    weights = torch.tensor([0.18, 1, 1, 1, 0.18])
    assert torch.allclose(spread[8:13], weights / 3.36**2, atol=1 / 255)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_loss_of_jpeg_is_like_that_of_a_jpeg_file(severity: int) -> None:
    image = photo(64, 3)[:1]
    file = io.BytesIO()
    quality = (60, 40, 25, 15, 7)[severity - 1]
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=0)
    real = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    ours = corrupt(image, "jpeg_like", severity)[0]
    assert (ours.float() - real.float()).abs().mean() < 1.0


def test_accuracy_falls_with_severity_on_average(learned: nn.Module, digits: ImageData) -> None:
    assert digits.test is not None
    images, labels = digits.test.images, digits.test.labels
    assert isinstance(images, Tensor)
    preprocess = Preprocess(digits.mean, digits.std)
    with torch.no_grad():
        accuracy = [
            sum(
                (learned(preprocess(corrupt(images, name, severity))).argmax(dim=1) == labels).float().mean().item()
                for name in CORRUPTIONS
            )
            for severity in SEVERITIES
        ]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > accuracy[-1] + 1


def test_other_names_and_severities_are_refused() -> None:
    with pytest.raises(SettingError, match="did you mean 'contrast'"):
        corrupt(photo(8, 1), "contrasts", 1)
    with pytest.raises(SettingError, match="from 1 to 5"):
        corrupt(photo(8, 1), "contrast", 6)

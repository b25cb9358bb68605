"""Common corruptions of images, in batches on the device, each at five severities.

They are limbeck's own: of the kinds of ImageNet-C and CIFAR-C (arXiv 1903.12261), with other strengths and other code, so
figures made with them are no figures on those sets. Blurs are wide in proportion to the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import SettingError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)
Corrupt = Callable[[Tensor, int, torch.Generator], Tensor]
"""From images (B, C, H, W) in [0, 1], a place 0 … 4 among the severities, and random numbers on the images' device."""

# The usual table of luminance of JPEG at quality 50 (ITU T.81, annex K), and that of colour.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_BLOCK = 8


def corrupt(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """uint8 images (B, C, H, W) with the corruption ``name`` at a severity from 1 to 5; the same for the same seed and device.

    Raises:
        SettingError: another name or severity.
    """
    if name not in CORRUPTIONS:
        raise SettingError(unknown_name("corruption", name, CORRUPTIONS))
    if severity not in SEVERITIES:
        raise SettingError(f"severity must be a whole number from 1 to 5, got {severity!r}.")
    generator = torch.Generator(images.device).manual_seed(seed)
    changed = CORRUPTIONS[name](images.float() / 255, severity - 1, generator)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)


def gaussian_noise(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """Normal noise of standard deviation 0.04 to 0.2."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + (0.04, 0.06, 0.09, 0.13, 0.2)[place] * noise


def shot_noise(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """Poisson noise of 300 down to 12 photons for white."""
    photons = (300, 120, 60, 25, 12)[place]
    return torch.poisson(images * photons, generator=generator) / photons


def impulse_noise(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """1 to 15 % of the values become black or white."""
    share = (0.01, 0.03, 0.05, 0.09, 0.15)[place]
    drawn = torch.rand(images.shape, generator=generator, device=images.device)
    return images.masked_fill(drawn < share / 2, 0.0).masked_fill(drawn > 1 - share / 2, 1.0)


def gaussian_blur(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """Standard deviation of 1.25 to 4 % of the side, 0.4 to 0.8 pixels at least."""
    deviation = _share_of_side(images, (0.0125, 0.02, 0.025, 0.03, 0.04), (0.4, 0.5, 0.6, 0.7, 0.8), place)
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    return _blurred(images, torch.exp(-(places**2) / (2 * deviation**2)))


def box_blur(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """Mean over a square of 5 to 16 % of the side, 1.3 to 3 pixels at least."""
    width = _share_of_side(images, (0.05, 0.075, 0.1, 0.125, 0.16), (1.3, 1.6, 2.0, 2.4, 3.0), place)
    reach = math.ceil((width - 1) / 2)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    # How much of each pixel the square covers.
    return _blurred(images, (width / 2 - (places.abs() - 0.5)).clamp(0, 1))


def contrast(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """75 down to 15 % of the contrast about each image's mean."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (0.75, 0.5, 0.4, 0.3, 0.15)[place] * (images - mean)


def brightness(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """0.1 to 0.5 brighter."""
    return images + (0.1, 0.2, 0.3, 0.4, 0.5)[place]


def pixelate(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """80 down to 30 % of the resolution, in squares."""
    share = (0.8, 0.65, 0.5, 0.4, 0.3)[place]
    height, width = images.shape[-2:]
    small = F.adaptive_avg_pool2d(images, (max(1, round(height * share)), max(1, round(width * share))))
    return F.interpolate(small, (height, width), mode="nearest")


def jpeg_like(images: Tensor, place: int, generator: torch.Generator) -> Tensor:
    """What JPEG loses at quality 60 down to 7: rounded cosine transforms of 8×8 blocks, colour at full resolution."""
    quality = (60, 40, 25, 15, 7)[place]
    factor = 50 / quality if quality < 50 else 2 - quality / 50
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    in_colour = images.shape[1] == 3
    to_planes = torch.tensor(_TO_YCBCR, device=images.device)
    planes = torch.einsum("pc,bchw->bphw", to_planes, padded) if in_colour else padded
    steps = (_quantisation(in_colour, planes.shape[1], images.device) * factor).round().clamp(1, 255)
    middle = torch.full((1, planes.shape[1], 1, 1), 128.0, device=images.device)
    if in_colour:
        middle[:, 1:] = 0.0  # colour is a difference already
    rough = _round_blocks(planes * 255 - middle, steps) + middle
    pixels = torch.einsum("cp,bphw->bchw", torch.linalg.inv(to_planes), rough) if in_colour else rough
    return pixels[..., :height, :width] / 255


def _quantisation(in_colour: bool, planes: int, device: torch.device) -> Tensor:
    """(planes, 1, 1, 8, 8) steps at quality 50."""
    luminance = torch.tensor(_LUMINANCE, dtype=torch.float32, device=device)
    colour = torch.full_like(luminance, 99.0)
    colour[:4, :4] = torch.tensor(_COLOUR_CORNER, dtype=torch.float32, device=device)
    tables = [luminance, *([colour if in_colour else luminance] * (planes - 1))]
    return torch.stack(tables)[:, None, None]


def _round_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    batch, count, height, width = planes.shape
    blocks = planes.reshape(batch, count, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    basis = _cosines(planes.device)
    rounded = ((basis @ blocks @ basis.T) / steps).round() * steps
    return (basis.T @ rounded @ basis).transpose(3, 4).reshape(planes.shape)


def _cosines(device: torch.device) -> Tensor:
    """(8, 8) orthonormal discrete cosine transform, a row for each frequency."""
    places = torch.arange(_BLOCK, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi / _BLOCK * (places + 0.5) * places[:, None]) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


def _share_of_side(images: Tensor, shares: tuple[float, ...], least: tuple[float, ...], place: int) -> float:
    return max(shares[place] * min(images.shape[-2:]), least[place])


def _blurred(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel convolved with the kernel down and across; pixels of the border are repeated outside."""
    kernel, reach, channels = kernel / kernel.sum(), len(kernel) // 2, images.shape[1]
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    down = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(down, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


CORRUPTIONS: Mapping[str, Corrupt] = {
    made.__name__: made
    for made in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        gaussian_blur,
        box_blur,
        contrast,
        brightness,
        pixelate,
        jpeg_like,
    )
}

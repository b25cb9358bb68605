"""The operations of RandAugment on batches, each image with its own strength.

Ranges, nearest-pixel warps and black filling are torchvision's; a strength of ±1 is its largest magnitude (bin 30).
Warps turn about the image's centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as nn_functional
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]


def apply_operation(images: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
    """``OPERATIONS[choice[i]]`` with ``strength[i]`` in [−1, 1] on each of the uint8 (B, C, H, W) images.

    Rows are grouped by operation, so that this waits for the device where ``choice`` is on one.
    """
    result = images.clone()
    for number, operation in enumerate(OPERATIONS):
        rows = (choice == number).nonzero().flatten()
        if len(rows):
            result[rows] = operation(images[rows], strength[rows])
    return result


def _identity(images: Tensor, strength: Tensor) -> Tensor:
    return images


def _warp(images: Tensor, rows: list[Tensor]) -> Tensor:
    """Inverse affine maps (a, b, tx, c, d, ty), each (n,), in pixels about the centre."""
    height, width = images.shape[-2:]
    a, b, tx, c, d, ty = rows
    top = torch.stack([a, b * (height / width), tx * (2 / width)], dim=1)
    bottom = torch.stack([c * (width / height), d, ty * (2 / height)], dim=1)
    grid = nn_functional.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    warped = nn_functional.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return warped.to(torch.uint8)


def _shear_x(images: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    return _warp(images, [one, 0.3 * strength, zero, zero, one, zero])


def _shear_y(images: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    return _warp(images, [one, zero, zero, 0.3 * strength, one, zero])


def _translate_x(images: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    shift = (150 / 331 * images.shape[-1] * strength).trunc()
    return _warp(images, [one, zero, shift, zero, one, zero])


def _translate_y(images: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    shift = (150 / 331 * images.shape[-2] * strength).trunc()
    return _warp(images, [one, zero, zero, zero, one, shift])


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle, zero = strength * math.radians(30), torch.zeros_like(strength)
    return _warp(images, [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero])


def _blend(images: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """``other`` at factor 0, the image at 1, beyond it at 1.9."""
    factor = (1 + 0.9 * strength).view(-1, 1, 1, 1)
    mixed = factor * images.float() + (1 - factor) * other.float()
    return mixed.clamp(0, 255).to(torch.uint8)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, torch.zeros_like(images), strength)


def _grey(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    grey: Tensor = F.rgb_to_grayscale(images) if images.shape[1] == 3 else images
    return grey


def _colour(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _grey(images), strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    grey = _grey(images)
    # A sum of integers does not depend on its order, so the pixels do not depend on what else is in the batch.
    total = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    return _blend(images, (total / grey[0].numel() + 0.5).floor(), strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    return _blend(images, F.adjust_sharpness(images, 0.0), strength)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    dropped = (4 * strength.abs()).round().to(torch.uint8).view(-1, 1, 1, 1)
    return (images >> dropped) << dropped


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = (255 * (1 - strength.abs())).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    stretched: Tensor = F.autocontrast(images)
    return stretched


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    equalized: Tensor = F.equalize(images)
    return equalized


# The order is part of what a view id means: append, never insert.
OPERATIONS: tuple[Operation, ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)

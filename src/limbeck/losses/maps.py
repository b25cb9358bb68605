"""Feature maps of two networks brought to one size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def align(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) and (B, D, H', W') maps at the smaller of the two sizes: the larger is averaged over its regions."""
    height, width = min(student.shape[-2], teacher.shape[-2]), min(student.shape[-1], teacher.shape[-1])
    return pool(student, height, width), pool(teacher, height, width)


def pool(maps: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) maps at another size: each place has the mean of the region that it covers."""
    return maps if maps.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(maps, (height, width))

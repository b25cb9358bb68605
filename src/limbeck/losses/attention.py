"""Where in its maps a network is active."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.precision import in_float32


@in_float32
def attention(maps: Tensor) -> Tensor:
    """(B, H·W) mean over the channels of the squares of (B, C, H, W) maps, of unit length for each sample (arXiv 1612.03928).

    It is that of the maps times any number but 0; maps of zeros give zeros.
    """
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)

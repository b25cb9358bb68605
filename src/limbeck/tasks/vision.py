"""How a batch of images meets a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.signals import Batch


@dataclass(frozen=True)
class VisionTask:
    """A network's own way of seeing a batch.

    preprocess: the module from uint8 (B, C, H, W) to what the network wants.
    """

    preprocess: nn.Module
    channels_last: bool = False

    def inputs(self, batch: Batch) -> Tensor:
        """The batch as the network sees it."""
        images: Tensor = self.preprocess(batch.inputs)
        if self.channels_last and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

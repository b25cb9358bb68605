"""What stands between the loader's pixels and one network: its normalisation, size and number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import SettingError, check_choice


class Preprocess(nn.Module):
    """Images (B, C, H, W) as one network wants them: float32, resized, normalised.

    mean, std: one value a channel, or one for all, of pixels in [0, 1]. size: side or (H, W) to resize to, None for as
    it comes. interpolation: ``bilinear`` or ``bicubic``, both with antialias. channels: what the network takes; grey
    images are repeated to it, None for as it comes. Where the ``settings`` of two are equal, one result serves both.

    Raises SettingError when mean, std and channels do not fit each other.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        size: int | tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        channels: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("interpolation", interpolation, ("bilinear", "bicubic"))
        if len(mean) != len(std) or (channels is not None and len(mean) not in (1, channels)):
            wanted = "as many" if channels is None else f"1 or {channels}"
            raise SettingError(f"mean and std need {wanted} values each, got {len(mean)} and {len(std)}.")
        if min(std) <= 0:
            raise SettingError(f"std must be greater than 0 in every channel, got {tuple(std)}.")
        self.size = (size, size) if isinstance(size, int) else size
        self.interpolation, self.channels = interpolation, channels
        self.settings = (tuple(map(float, mean)), tuple(map(float, std)), self.size, interpolation, channels)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (0 to 255) or floating images (taken as 0 to 1) to float32.

        Raises SettingError on another dtype or number of channels.
        """
        pixels = self._repeated(self._scaled(images))
        if self.size is not None and tuple(pixels.shape[-2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode=self.interpolation, antialias=True, align_corners=False)
        return (pixels - self.mean) / self.std

    def _scaled(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return images.float() / 255
        if not images.is_floating_point():
            raise SettingError(f"images must be uint8 or floating, got {images.dtype}.")
        return images.float()

    def _repeated(self, pixels: Tensor) -> Tensor:
        wanted = self.channels or max(len(self.mean), pixels.shape[1])
        if pixels.shape[1] == wanted:
            return pixels
        if pixels.shape[1] != 1:
            raise SettingError(f"the network takes images of {wanted} channels, got {pixels.shape[1]}.")
        return pixels.expand(-1, wanted, -1, -1)

    def extra_repr(self) -> str:
        mean, std, size, interpolation, channels = self.settings
        return f"mean={mean}, std={std}, size={size}, interpolation={interpolation!r}, channels={channels}"

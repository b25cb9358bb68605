"""Plain convolutional networks for tiny images such as the 8×8 digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck.errors import SettingError
from limbeck.models.zoo.registry import register_model


class ConvNet(nn.Module):
    """One 3×3 convolution, batch norm and ReLU a stage: (B, in_channels, H, W) to logits (B, num_classes).

    A 2×2 max-pool stands between stages, so H and W must be at least 2 to the power of the stages less one. Tap
    ``stages.0``, ``stages.1``, … for the features after the ReLU, ``classifier`` for the embedding (B, widths[-1]).
    """

    def __init__(self, widths: Sequence[int], *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        inputs = (in_channels, *widths)
        self.stages = nn.ModuleList(_stage(before, after) for before, after in zip(inputs, widths, strict=False))
        self.between = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stages[0](images)
        for stage in self.stages[1:]:
            maps = stage(self.between(maps))
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))
        return logits


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@register_model
def convnet(*, num_classes: int, in_channels: int = 3, widths: Sequence[int] = (8, 16)) -> ConvNet:
    """One stage for each of ``widths``, the channels of the stages.

    Raises:
        SettingError: ``widths`` is not a list of one or more positive whole numbers.
    """
    if not isinstance(widths, list | tuple) or not widths or any(type(w) is not int or w < 1 for w in widths):
        raise SettingError(f"widths must be a list of positive whole numbers such as [8, 16], got {widths!r}.")
    return ConvNet(widths, num_classes=num_classes, in_channels=in_channels)


@register_model
def convnet_tiny(*, num_classes: int, in_channels: int = 3) -> ConvNet:
    """Widths 8 and 16: 1,442 parameters for ten classes of grey images."""
    return ConvNet((8, 16), num_classes=num_classes, in_channels=in_channels)


@register_model
def convnet_base(*, num_classes: int, in_channels: int = 3) -> ConvNet:
    """Widths 64, 128 and 184: 288,874 parameters for ten classes of grey images; about 99 % on scikit-learn digits."""
    return ConvNet((64, 128, 184), num_classes=num_classes, in_channels=in_channels)

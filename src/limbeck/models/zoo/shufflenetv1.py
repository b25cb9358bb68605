"""The CIFAR ShuffleNetV1 that distillation papers compare on.

Three groups of channels, a 1×1 stem of stride 1 and no max-pool. Unlike in the paper a ReLU follows the depthwise
convolution too. The modules have the names that the public benchmarks use (RepDistiller, mdistiller), so their checkpoints
load as they are. Counts below are for 32×32 RGB images and 100 classes.

Source: Zhang et al., ShuffleNet: An extremely efficient convolutional neural network for mobile devices, 2018, section 3
and table 1 (g = 3); the form for small images is that of Tian et al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_GROUPS = 3
_STEM = 24
_WIDTHS = (240, 480, 960)
_BLOCKS = (4, 8, 4)


class ShuffleNetV1(nn.Module):
    """Three stages of shuffle units, each of half the size: (B, in_channels, H, W) to logits (B, num_classes).

    Tap ``layer1`` … ``layer3`` for the features after the ReLU, ``linear`` for the embedding (B, 960).

    Args:
        num_classes: outputs of the classifier ``linear``.
        in_channels: channels of the images.
    """

    stage_taps = StageTaps(
        stages=("layer1", "layer2", "layer3"),
        preactivations=tuple(
            f"layer{number}.{blocks - 1}.relu:input" for number, blocks in enumerate(_BLOCKS, start=1)
        ),
        stem="relu",
    )

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = nn.Conv2d(in_channels, _STEM, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(_BLOCKS[0], _STEM, first)
        self.layer2 = _stage(_BLOCKS[1], first, second)
        self.layer3 = _stage(_BLOCKS[2], second, third)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: Tensor = self.linear(self.avgpool(maps).flatten(1))
        return logits


class _ShuffleUnit(nn.Module):
    """1×1 group convolution, channel shuffle, 3×3 depthwise, 1×1 group convolution, joined to the input, then ReLU.

    A unit of stride 1 adds its input; one of stride 2 appends the 3×3 average of its input as channels of its own.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        made = outputs if stride == 1 else outputs - inputs
        inner = made // 4
        # The stem's few channels are not split into groups.
        self.groups = 1 if inputs == _STEM else _GROUPS
        self.conv1 = nn.Conv2d(inputs, inner, kernel_size=1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, kernel_size=3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, made, kernel_size=1, groups=_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(made)
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(kernel_size=3, stride=stride, padding=1)
        # Out of place: its input at the last run is tapped as the preactivation.
        self.relu = nn.ReLU()
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        made = _shuffled(self.relu(self.bn1(self.conv1(maps))), self.groups)
        made = self.relu(self.bn2(self.conv2(made)))
        made = self.bn3(self.conv3(made))
        kept = self.shortcut(maps)
        joined: Tensor = self.relu(made + kept if self.stride == 1 else torch.cat((made, kept), dim=1))
        return joined


def _shuffled(maps: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups: the first of each, then the second of each, and so on."""
    shuffled: Tensor = maps.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return shuffled


def _stage(blocks: int, inputs: int, outputs: int) -> nn.Sequential:
    first = _ShuffleUnit(inputs, outputs, stride=2)
    return nn.Sequential(first, *(_ShuffleUnit(outputs, outputs, stride=1) for _ in range(blocks - 1)))


@register_model
def shufflenetv1(*, num_classes: int, in_channels: int = 3) -> ShuffleNetV1:
    """949,258 parameters, 38.69 M multiply-adds, embedding of 960."""
    return ShuffleNetV1(num_classes=num_classes, in_channels=in_channels)

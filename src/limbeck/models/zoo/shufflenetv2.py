"""The CIFAR ShuffleNetV2 that distillation papers compare on: width 1, a 1×1 stem of stride 1 and no max-pool.

The units are torchvision's, so a checkpoint of the public benchmarks (RepDistiller, mdistiller) has other names inside
them; :meth:`ShuffleNetV2.public_names` renames those. Counts below are for 32×32 RGB images and 100 classes.

Source: Ma et al., ShuffleNet V2: Practical guidelines for efficient CNN architecture design, 2018, section 3 and table 5;
the form for small images is that of Tian et al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.shufflenetv2 import InvertedResidual

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_STEM, _EMBEDDING = 24, 1024
_WIDTHS = (116, 232, 464)
_BLOCKS = (4, 8, 4)

_PUBLIC = re.compile(r"\b(layer[123]\.(\d+)\.)((?:conv|bn)[1-5])\.")
# The public names number the layers of a unit through both of its branches; a later unit has none in the first branch.
_FIRST_UNIT = {
    "conv1": "branch1.0",
    "bn1": "branch1.1",
    "conv2": "branch1.2",
    "bn2": "branch1.3",
    "conv3": "branch2.0",
    "bn3": "branch2.1",
    "conv4": "branch2.3",
    "bn4": "branch2.4",
    "conv5": "branch2.5",
    "bn5": "branch2.6",
}
_LATER_UNIT = {
    "conv1": "branch2.0",
    "bn1": "branch2.1",
    "conv2": "branch2.3",
    "bn2": "branch2.4",
    "conv3": "branch2.5",
    "bn3": "branch2.6",
}


class ShuffleNetV2(nn.Module):
    """Three stages of shuffle units, each of half the size: (B, in_channels, H, W) to logits (B, num_classes).

    Tap ``layer1`` … ``layer3`` for the features, ``linear`` for the embedding (B, 1024). Half the channels of a unit of
    stride 1 pass by it unchanged and are shuffled with the rest after the ReLU, so no single tensor in the network is a
    stage before its last ReLU, and ``stage_taps`` names no preactivations. (The public benchmarks join the unchanged half
    with the other half before its ReLU and do not shuffle: a map whose channels are in another order than the stage's.)

    Args:
        num_classes: outputs of the classifier ``linear``.
        in_channels: channels of the images.
    """

    stage_taps = StageTaps(stages=("layer1", "layer2", "layer3"), stem="relu")

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = nn.Conv2d(in_channels, _STEM, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(_BLOCKS[0], _STEM, first)
        self.layer2 = _stage(_BLOCKS[1], first, second)
        self.layer3 = _stage(_BLOCKS[2], second, third)
        self.conv2 = nn.Conv2d(third, _EMBEDDING, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_EMBEDDING)
        self.relu2 = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(_EMBEDDING, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        maps = self.relu2(self.bn2(self.conv2(maps)))
        logits: Tensor = self.linear(self.avgpool(maps).flatten(1))
        return logits

    @staticmethod
    def public_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state with the names of the public benchmarks under the names of this network; any other name stays."""
        return {_PUBLIC.sub(_renamed, name): tensor for name, tensor in state.items()}


def _renamed(name: re.Match[str]) -> str:
    stage_and_unit, unit, layer = name.groups()
    return f"{stage_and_unit}{(_FIRST_UNIT if unit == '0' else _LATER_UNIT).get(layer, layer)}."


def _stage(blocks: int, inputs: int, outputs: int) -> nn.Sequential:
    first = InvertedResidual(inputs, outputs, 2)
    return nn.Sequential(first, *(InvertedResidual(outputs, outputs, 1) for _ in range(blocks - 1)))


@register_model
def shufflenetv2(*, num_classes: int, in_channels: int = 3) -> ShuffleNetV2:
    """1,355,528 parameters, 44.50 M multiply-adds, embedding of 1024."""
    return ShuffleNetV2(num_classes=num_classes, in_channels=in_channels)

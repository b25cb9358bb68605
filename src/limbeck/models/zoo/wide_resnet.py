"""The wide ResNets that distillation papers compare on: three groups of pre-activation blocks behind a 3×3 stem.

``wrn_D_K`` has D layers and K times the channels of a plain CIFAR ResNet. The modules have the names that the public
benchmarks use (RepDistiller, mdistiller), so their checkpoints load as they are. Counts below are for 32×32 RGB images and
100 classes.

Source: Zagoruyko and Komodakis, Wide residual networks, 2016, section 2 and table 1, without dropout.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_STEM = 16


class WideResNet(nn.Module):
    """A pre-activation ResNet of 6·blocks + 4 layers: (B, in_channels, H, W) to logits (B, num_classes).

    Tap ``block1`` … ``block3`` for the features, ``fc`` for the embedding. A group ends in a sum with no ReLU behind it, so
    its taps can be negative. Its preactivation is what the next batch norm makes of it, the input of the ReLU after that.
    (The public benchmarks run that norm a second time to get it, which updates its running statistics twice a step.)

    Args:
        blocks: blocks in each of the three groups.
        widening: channels of the groups are 16, 32 and 64 times this.
        num_classes: outputs of the classifier ``fc``.
        in_channels: channels of the images.
    """

    stage_taps = StageTaps(
        stages=("block1", "block2", "block3"),
        preactivations=("block2.layer.0.relu1:input", "block3.layer.0.relu1:input", "relu:input"),
        stem="conv1",
    )

    def __init__(self, blocks: int, widening: int, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third = (width * widening for width in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_channels, _STEM, kernel_size=3, padding=1, bias=False)
        self.block1 = _group(blocks, _STEM, first, stride=1)
        self.block2 = _group(blocks, first, second, stride=2)
        self.block3 = _group(blocks, second, third, stride=2)
        self.bn1 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        maps = self.relu(self.bn1(maps))
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


class _Block(nn.Module):
    """Twice batch norm, ReLU and 3×3 convolution, added to the input.

    Where the number of channels changes, a 1×1 convolution of the *activated* input is added in place of the input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        # Not in place, as in the first block of a group its input is a tap.
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        # The public checkpoints name it so.
        self.convShortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(maps))
        residual: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        shortcut: Tensor = maps if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + residual


def _group(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride)
    layer = nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))
    # The public checkpoints hold a group's blocks one level down, under ``layer``.
    return nn.Sequential(OrderedDict(layer=layer))


@register_model
def wrn_16_1(*, num_classes: int, in_channels: int = 3) -> WideResNet:
    """180,916 parameters, 26.66 M multiply-adds, embedding of 64."""
    return WideResNet(2, 1, num_classes=num_classes, in_channels=in_channels)


@register_model
def wrn_16_2(*, num_classes: int, in_channels: int = 3) -> WideResNet:
    """703,284 parameters, 101.12 M multiply-adds, embedding of 128."""
    return WideResNet(2, 2, num_classes=num_classes, in_channels=in_channels)


@register_model
def wrn_40_1(*, num_classes: int, in_channels: int = 3) -> WideResNet:
    """569,780 parameters, 83.29 M multiply-adds, embedding of 64."""
    return WideResNet(6, 1, num_classes=num_classes, in_channels=in_channels)


@register_model
def wrn_40_2(*, num_classes: int, in_channels: int = 3) -> WideResNet:
    """2,255,156 parameters, 327.61 M multiply-adds, embedding of 128."""
    return WideResNet(6, 2, num_classes=num_classes, in_channels=in_channels)

"""The CIFAR ResNets that distillation papers compare on.

Three stages of basic blocks behind a 3×3 stem. The modules have the names that the public benchmarks use
(RepDistiller, mdistiller), so their checkpoints load as they are. Tap ``layer1`` … ``layer3`` for the features after
the ReLU, ``fc`` for the embedding. Counts below are for 32×32 RGB images and 100 classes.

Source: He et al., Deep residual learning for image recognition, 2016, section 4.2; the ×4 widths are those of Tian et
al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_WIDTHS = (16, 16, 32, 64)
_WIDTHS_X4 = (32, 64, 128, 256)


class CifarResNet(nn.Module):
    """A ResNet of 6·blocks + 2 layers for small images: (B, in_channels, H, W) to logits (B, num_classes).

    Args:
        blocks: basic blocks in each of the three stages.
        widths: channels of the stem and of the three stages.
        num_classes: outputs of the classifier ``fc``.
        in_channels: channels of the images.
    """

    def __init__(self, blocks: int, widths: tuple[int, int, int, int], *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        stem, first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, stem, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_stage(BasicBlock, blocks, stem, first, stride=1)
        self.layer2 = residual_stage(BasicBlock, blocks, first, second, stride=2)
        self.layer3 = residual_stage(BasicBlock, blocks, second, third, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        self.stage_taps = residual_taps(blocks, blocks, blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


def residual_stage(block: Any, blocks: int, inputs: int, width: int, stride: int) -> nn.Sequential:
    """Blocks of torchvision (``BasicBlock`` or ``Bottleneck``) of one width, the first with the stride of the stage."""
    outputs = width * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    stage = nn.Sequential(block(inputs, width, stride, shortcut), *(block(outputs, width) for _ in range(blocks - 1)))
    # A block's own ReLU works in place and would overwrite the stage before its last ReLU, which is a tap.
    stage[-1].relu = nn.ReLU()
    return stage


def residual_taps(*blocks: int) -> StageTaps:
    """The taps of stages ``layer1``, ``layer2``, … of so many blocks."""
    stages = tuple(f"layer{number}" for number in range(1, len(blocks) + 1))
    # A block calls its one ReLU after each convolution; the last call has the sum with the shortcut.
    ends = tuple(f"{stage}.{count - 1}.relu:input" for stage, count in zip(stages, blocks, strict=True))
    return StageTaps(stages=stages, preactivations=ends, stem="relu")


@register_model
def resnet8(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """83,892 parameters, 12.51 M multiply-adds, embedding of 64."""
    return CifarResNet(1, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet14(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """181,108 parameters, 26.66 M multiply-adds, embedding of 64."""
    return CifarResNet(2, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet20(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """278,324 parameters, 40.82 M multiply-adds, embedding of 64."""
    return CifarResNet(3, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet32(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """472,756 parameters, 69.13 M multiply-adds, embedding of 64."""
    return CifarResNet(5, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet44(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """667,188 parameters, 97.44 M multiply-adds, embedding of 64."""
    return CifarResNet(7, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet56(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """861,620 parameters, 125.75 M multiply-adds, embedding of 64."""
    return CifarResNet(9, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet110(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """1,736,564 parameters, 253.16 M multiply-adds, embedding of 64."""
    return CifarResNet(18, _WIDTHS, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet8x4(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """1,233,540 parameters, 177.07 M multiply-adds, embedding of 256."""
    return CifarResNet(1, _WIDTHS_X4, num_classes=num_classes, in_channels=in_channels)


@register_model
def resnet32x4(*, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """7,433,860 parameters, 1083.04 M multiply-adds, embedding of 256."""
    return CifarResNet(5, _WIDTHS_X4, num_classes=num_classes, in_channels=in_channels)

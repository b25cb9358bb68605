"""The half-width MobileNetV2 that distillation papers compare on.

It is not the MobileNetV2 of torchvision or timm at width 0.5: channels are halved exactly and not rounded to a multiple
of eight, the first block keeps its 1×1 expansion, activations are ReLU, there is no dropout, and the stride of the second
group is 1. The modules have the names that the public benchmarks use (RepDistiller, mdistiller), so their checkpoints
load as they are. Counts below are for 32×32 RGB images and 100 classes.

Source: Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks, 2018, section 3 and table 2; the form for
small images is that of Tian et al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_STEM, _EMBEDDING = 16, 1280
# expansion, channels, blocks, stride of the first block
_GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))


class MobileNetV2Half(nn.Module):
    """Seven groups of inverted residual blocks: (B, in_channels, H, W) to logits (B, num_classes).

    The stem halves the image and three of the groups halve it again. Tap ``blocks.1``, ``blocks.2``, ``blocks.4`` and
    ``blocks.6`` for the features, each the last at its spatial size, and ``classifier.0`` for the embedding (B, 1280).
    A block ends in a batch norm and not in a ReLU (the linear bottleneck), so the taps can be negative and
    ``stage_taps`` names no preactivations: the outputs of the stages are those already.

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
    """

    stage_taps = StageTaps(stages=("blocks.1", "blocks.2", "blocks.4", "blocks.6"), stem="conv1")

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_unit(in_channels, _STEM, kernel_size=3, stride=2))
        groups = []
        channels = _STEM
        for expansion, outputs, blocks, stride in _GROUPS:
            groups.append(_group(channels, outputs, expansion, blocks, stride))
            channels = outputs
        self.blocks = nn.Sequential(*groups)
        self.conv2 = nn.Sequential(*_unit(channels, _EMBEDDING, kernel_size=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # A sequence of one layer, because the public checkpoints call its weight classifier.0.weight.
        self.classifier = nn.Sequential(nn.Linear(_EMBEDDING, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv2(self.blocks(self.conv1(images)))
        logits: Tensor = self.classifier(self.avgpool(maps).flatten(1))
        return logits


class _InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise and linear 1×1 projection, added to the input where the shapes are the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *_unit(inputs, inner, kernel_size=1),
            *_unit(inner, inner, kernel_size=3, stride=stride, groups=inner),
            nn.Conv2d(inner, outputs, kernel_size=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        projected: Tensor = self.conv(maps)
        return maps + projected if self.residual else projected


def _group(inputs: int, outputs: int, expansion: int, blocks: int, stride: int) -> nn.Sequential:
    first = _InvertedResidual(inputs, outputs, expansion, stride)
    return nn.Sequential(first, *(_InvertedResidual(outputs, outputs, expansion, 1) for _ in range(blocks - 1)))


def _unit(
    inputs: int, outputs: int, *, kernel_size: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


@register_model
def mobilenetv2_half(*, num_classes: int, in_channels: int = 3) -> MobileNetV2Half:
    """812,836 parameters, 6.52 M multiply-adds, embedding of 1280."""
    return MobileNetV2Half(num_classes=num_classes, in_channels=in_channels)

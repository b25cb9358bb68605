"""The ResNet-50 for small images that distillation papers compare on: a 3×3 stem of stride 1 and no max-pool.

The blocks are torchvision's, which call the shortcut ``downsample``; in checkpoints of the public benchmarks (RepDistiller,
mdistiller) it is ``shortcut``, and :meth:`CifarResNet50.public_names` renames it. Counts below are for 32×32 RGB images and
100 classes.

Source: He et al., Deep residual learning for image recognition, 2016, table 1; the form for small images is that of Tian et
al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from limbeck.models.zoo.registry import register_model
from limbeck.models.zoo.resnet import residual_stage, residual_taps

_STEM = 64
_BLOCKS = (3, 4, 6, 3)
_EMBEDDING = 2048


class CifarResNet50(nn.Module):
    """Four stages of bottleneck blocks: (B, in_channels, H, W) to logits (B, num_classes).

    The last three stages halve the image. Tap ``layer1`` … ``layer4`` for the features after the ReLU, ``linear`` for the
    embedding (B, 2048).

    Args:
        num_classes: outputs of the classifier ``linear``.
        in_channels: channels of the images.
    """

    stage_taps = residual_taps(*_BLOCKS)

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, _STEM, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_stage(Bottleneck, _BLOCKS[0], _STEM, 64, stride=1)
        self.layer2 = residual_stage(Bottleneck, _BLOCKS[1], 256, 128, stride=2)
        self.layer3 = residual_stage(Bottleneck, _BLOCKS[2], 512, 256, stride=2)
        self.layer4 = residual_stage(Bottleneck, _BLOCKS[3], 1024, 512, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(_EMBEDDING, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.linear(self.avgpool(maps).flatten(1))
        return logits

    @staticmethod
    def public_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state with the names of the public benchmarks under the names of this network; any other name stays."""
        return {name.replace(".shortcut.", ".downsample."): tensor for name, tensor in state.items()}


@register_model
def ResNet50(*, num_classes: int, in_channels: int = 3) -> CifarResNet50:  # noqa: N802  (the name in every published table)
    """23,705,252 parameters, 1298.01 M multiply-adds, embedding of 2048."""
    return CifarResNet50(num_classes=num_classes, in_channels=in_channels)

"""The VGG networks for small images that distillation papers compare on: batch norm throughout and one linear layer.

The modules have the names that the public benchmarks use (RepDistiller, mdistiller), so their checkpoints load as they are.
Counts below are for 32×32 RGB images and 100 classes.

Source: Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2015, table 1; the form
for small images, and the eight layers of vgg8, are those of Tian et al., Contrastive representation distillation, 2020.
"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.models.zoo.registry import register_model
from limbeck.stages import StageTaps

_WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(nn.Module):
    """Five blocks of 3×3 convolutions: (B, in_channels, H, W) to logits (B, num_classes), H and W at least 8.

    The first three blocks are followed by a 2×2 max-pool. (The public benchmarks pool after the fourth too, for images
    64 high and no others; here the network is the same for every size.) Tap ``block1`` … ``block4`` for the features after
    the ReLU, ``classifier`` for the embedding (B, 512).

    Args:
        layers: convolutions in each of the five blocks.
        num_classes: outputs of ``classifier``.
        in_channels: channels of the images.
    """

    def __init__(self, layers: tuple[int, int, int, int, int], *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        inputs = (in_channels, *_WIDTHS[:-1])
        blocks = [_block(*sizes) for sizes in zip(inputs, _WIDTHS, layers, strict=True)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
        self.pool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_WIDTHS[-1], num_classes)
        self.stage_taps = StageTaps(
            stages=tuple(f"block{number}" for number in range(1, 5)),
            preactivations=tuple(f"block{number}.{len(blocks[number]) - 1}:input" for number in range(1, 5)),
            stem="block0",
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for block in (self.block0, self.block1, self.block2):
            maps = self.pool(block(maps))
        maps = self.block4(self.block3(maps))
        logits: Tensor = self.classifier(self.avgpool(maps).flatten(1))
        return logits


def _block(inputs: int, width: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for number in range(layers):
        convolution = nn.Conv2d(inputs if number == 0 else width, width, kernel_size=3, padding=1)
        # The last ReLU is not in place: its input, the block before it, is a tap.
        modules += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=number < layers - 1)]
    return nn.Sequential(*modules)


@register_model
def vgg8(*, num_classes: int, in_channels: int = 3) -> CifarVGG:
    """3,965,028 parameters, 96.19 M multiply-adds, embedding of 512."""
    return CifarVGG((1, 1, 1, 1, 1), num_classes=num_classes, in_channels=in_channels)


@register_model
def vgg11(*, num_classes: int, in_channels: int = 3) -> CifarVGG:
    """9,277,284 parameters, 209.44 M multiply-adds, embedding of 512."""
    return CifarVGG((1, 1, 2, 2, 2), num_classes=num_classes, in_channels=in_channels)


@register_model
def vgg13(*, num_classes: int, in_channels: int = 3) -> CifarVGG:
    """9,462,180 parameters, 284.94 M multiply-adds, embedding of 512."""
    return CifarVGG((2, 2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels)


@register_model
def vgg16(*, num_classes: int, in_channels: int = 3) -> CifarVGG:
    """14,774,436 parameters, 398.18 M multiply-adds, embedding of 512."""
    return CifarVGG((2, 2, 3, 3, 3), num_classes=num_classes, in_channels=in_channels)


@register_model
def vgg19(*, num_classes: int, in_channels: int = 3) -> CifarVGG:
    """20,086,692 parameters, 511.43 M multiply-adds, embedding of 512."""
    return CifarVGG((2, 2, 4, 4, 4), num_classes=num_classes, in_channels=in_channels)

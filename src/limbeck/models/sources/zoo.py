"""The zoo: small networks for small images, written here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from limbeck.errors import SettingError
from limbeck.models.sources.base import Built, Request, Source, check_arguments, no_published_weights
from limbeck.models.sources.registry import register_source
from limbeck.models.zoo import zoo_models

_COUNTED_CLASSES = 100


@register_source
class ZooSource(Source):
    """``resnet8x4``, ``convnet(widths=[8, 16])``: also without the ``zoo:`` before it."""

    name = "zoo"

    def build(self, request: Request) -> Built:
        functions = zoo_models()
        if request.name not in functions:
            raise self.unknown(request.name, "Other sources are named in front, as in timm:resnet18.")
        if request.pretrained:
            raise no_published_weights(request.name)
        if request.classes is None:
            raise SettingError(f"{request.name} needs num_classes, the number of classes in the data.")
        arguments = {"num_classes": request.num_classes, "in_channels": request.in_channels, **request.arguments}
        check_arguments(request.name, functions[request.name], arguments)
        return Built(functions[request.name](**arguments))

    def names(self) -> Sequence[str]:
        return list(zoo_models())

    def parameters(self, name: str) -> int:
        """Parameters for RGB images and 100 classes."""
        with torch.device("meta"):
            network = zoo_models()[name](num_classes=_COUNTED_CLASSES)
        return sum(parameter.numel() for parameter in network.parameters())

"""Classification networks of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from limbeck.errors import SettingError
from limbeck.models.sources.base import Built, InputSpec, Request, Source, call_builder, unreachable_weights
from limbeck.models.sources.registry import register_source


@register_source
class TorchvisionSource(Source):
    """``torchvision:resnet18``, ``torchvision:vit_b_16(image_size=32)``, ``torchvision:resnet50@pretrained``."""

    name = "torchvision"
    reserved = {"weights": "write torchvision:NAME@pretrained or torchvision:NAME@FILE"}

    def build(self, request: Request) -> Built:
        from torchvision import models

        label = f"torchvision:{request.name}"
        if request.name not in self.names():
            raise self.unknown(request.name)
        if request.in_channels != 3:
            raise SettingError(
                f"{label} takes images of 3 channels, the data has {request.in_channels}. "
                "Networks of timm and of the zoo take any number."
            )
        builder = partial(models.get_model, request.name)
        if request.pretrained:
            return _pretrained(label, builder, models.get_model_weights(request.name).DEFAULT, request)
        classes = {} if request.num_classes is None else {"num_classes": request.num_classes}
        return Built(call_builder(label, builder, {**classes, **request.arguments}))

    def names(self) -> Sequence[str]:
        from torchvision import models

        return list(models.list_models(module=models))


def _pretrained(label: str, builder: Any, weights: Any, request: Request) -> Built:
    arguments = {name: value for name, value in request.arguments.items() if name != "num_classes"}
    try:
        network = call_builder(label, partial(builder, weights=weights, progress=False), arguments)
    except OSError as error:
        raise unreachable_weights(label, error) from error
    published = len(weights.meta["categories"])
    new = request.classes is not None and request.classes != published
    if new:
        assert request.classes is not None
        _renew_classifiers(network, published, request.classes)
    return Built(network, _input_spec(weights.transforms()), new)


def _renew_classifiers(network: nn.Module, published: int, classes: int) -> None:
    # torchvision loads published weights only at their own number of classes. Its classifiers are of these two kinds.
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and module.out_features == published:
            renewed: nn.Module = nn.Linear(module.in_features, classes, bias=module.bias is not None)
        elif isinstance(module, nn.Conv2d) and module.out_channels == published and module.kernel_size == (1, 1):
            renewed = nn.Conv2d(module.in_channels, classes, kernel_size=1, bias=module.bias is not None)
        else:
            continue
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, renewed)


def _input_spec(transforms: Any) -> InputSpec:
    side = transforms.crop_size[0]
    return InputSpec(tuple(transforms.mean), tuple(transforms.std), (side, side), transforms.interpolation.value)

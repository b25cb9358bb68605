"""Networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from limbeck.errors import SettingError, unknown_name
from limbeck.models.sources.base import (
    Built,
    InputSpec,
    Request,
    Source,
    call_builder,
    no_published_weights,
    unreachable_weights,
)
from limbeck.models.sources.registry import register_source


@register_source
class TimmSource(Source):
    """``timm:resnet18(drop_rate=0.1)``, ``timm:resnet50.a1_in1k@pretrained``."""

    name = "timm"
    reserved = {
        "pretrained": "write timm:NAME@pretrained for published weights",
        "checkpoint_path": "write timm:NAME@FILE for the weights of a file",
    }

    def build(self, request: Request) -> Built:
        import timm
        from timm.models import get_pretrained_cfg, is_model_pretrained

        label = f"timm:{request.name}"
        if not timm.is_model(request.name):
            raise self.unknown(request.name)
        if "." in request.name and request.name not in timm.list_pretrained():
            raise _unknown_tag(request.name)
        if request.pretrained and not is_model_pretrained(request.name):
            raise no_published_weights(label)
        config = get_pretrained_cfg(request.name)
        arguments = _arguments(request, fixed_size=bool(config and config.fixed_input_size))
        builder = partial(timm.create_model, request.name)
        if not request.pretrained:
            return Built(call_builder(label, builder, arguments))
        try:
            network = call_builder(label, partial(builder, pretrained=True), arguments)
        except OSError as error:
            raise unreachable_weights(label, error) from error
        spec = _input_spec(config, arguments["in_chans"])
        return Built(network, spec, request.classes not in (None, config.num_classes))

    def names(self) -> Sequence[str]:
        import timm

        return list(timm.list_models())


def _unknown_tag(name: str) -> SettingError:
    import timm

    return SettingError(unknown_name("timm weights", name, timm.list_pretrained(f"{name.partition('.')[0]}.*")))


def _arguments(request: Request, fixed_size: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"in_chans": request.in_channels}
    if request.num_classes is not None:
        arguments["num_classes"] = request.num_classes
    # Published weights keep the size they were trained at; the images are resized to it.
    if fixed_size and request.image_size is not None and not request.pretrained:
        arguments["img_size"] = request.image_size
    return {**arguments, **request.arguments}


def _input_spec(config: Any, in_channels: int) -> InputSpec:
    mean, std = (_for_channels(values, in_channels) for values in (config.mean, config.std))
    return InputSpec(mean, std, tuple(config.input_size[1:]), config.interpolation)


def _for_channels(values: Sequence[float], in_channels: int) -> tuple[float, ...]:
    # timm folds or repeats the first convolution over other channels; the matching statistic is the average.
    if len(values) == in_channels:
        return tuple(values)
    return (sum(values) / len(values),) * in_channels

"""Students whose classifier is a projector and their teacher's: what ``simkd`` leaves behind."""

from __future__ import annotations

from typing import Any

from torch import nn

from limbeck.errors import SettingError
from limbeck.heads import BottleneckClassifier, Projected
from limbeck.models.sources.base import Built, Request, Source, check_arguments, no_published_weights
from limbeck.models.sources.registry import register_source


@register_source
class ProjectedSource(Source):
    """``projected:student(network='resnet8x4', path='layer3', channels=256, …)``, as limbeck writes it into a file's card."""

    name = "projected"
    reserved = {"num_classes": "it is the number of classes of the data"}

    def build(self, request: Request) -> Built:
        from limbeck.models.create import create_model

        if request.name != "student":
            raise SettingError(f"the source projected has one network, 'student', got {request.name!r}.")
        if request.pretrained:
            raise no_published_weights("projected:student")
        if request.num_classes is None:
            raise SettingError("projected:student needs to know the number of classes.")
        check_arguments("projected:student", _student, request.arguments)
        network, path, classifier, arguments = _student(**request.arguments)
        inner = create_model(
            network,
            num_classes=request.num_classes,
            in_channels=request.in_channels,
            image_size=request.image_size,
        )
        head = BottleneckClassifier(num_classes=request.num_classes, **arguments)
        return Built(Projected(inner.network, path, classifier, head), inner.input)


def projected_name(network: str, path: str, classifier: str, head: nn.Module) -> str:
    """The text that makes a :class:`limbeck.heads.Projected` again."""
    assert isinstance(head, BottleneckClassifier)
    facts = {"network": network, "path": path, "classifier": classifier, **head.arguments}
    return f"projected:student({', '.join(f'{key}={value!r}' for key, value in facts.items() if key != 'num_classes')})"


def _student(
    *,
    network: str,
    path: str,
    classifier: str,
    channels: int,
    teacher_channels: int,
    height: int,
    width: int,
    factor: int,
) -> tuple[str, str, str, dict[str, Any]]:
    head = {"channels": channels, "teacher_channels": teacher_channels, "height": height, "width": width}
    return network, path, classifier, {**head, "factor": factor}

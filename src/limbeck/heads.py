"""Modules that take the place of a student's classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from limbeck.losses import align
from limbeck.taps import as_map, first_tensor, module_at


class BottleneckClassifier(nn.Module):
    """A projector of feature maps to a teacher's size, and the teacher's own classifier behind it.

    (B, channels, H, W) maps, averaged to at most ``height`` × ``width``, pass 1×1, 3×3 and 1×1 convolutions, each with
    batch norm and ReLU, to (B, teacher_channels, ·, ·); their mean over the positions passes the classifier, which does
    not learn.

    Args:
        channels: of the maps that come in. teacher_channels: of the teacher's. num_classes: outputs.
        height, width: of the teacher's maps.
        factor: by how much the 3×3 convolution is narrower than ``teacher_channels``.
    """

    def __init__(
        self, *, channels: int, teacher_channels: int, num_classes: int, height: int, width: int, factor: int
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "channels": channels,
            "teacher_channels": teacher_channels,
            "num_classes": num_classes,
            "height": height,
            "width": width,
            "factor": factor,
        }
        narrow = max(1, teacher_channels // factor)
        self.projector = nn.Sequential(
            *_convolution(channels, narrow, 1),
            *_convolution(narrow, narrow, 3),
            *_convolution(narrow, teacher_channels, 1),
        )
        self.classifier = nn.Linear(teacher_channels, num_classes).requires_grad_(False)
        self._like = (height, width)

    def project(self, maps: Tensor) -> Tensor:
        """(B, teacher_channels, h, w), h and w at most the teacher's."""
        height, width = self._like
        smaller, _ = align(maps, maps.new_empty(1, 1, height, width))
        projected: Tensor = self.projector(smaller)
        return projected

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.project(maps).mean(dim=(2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class Projected(nn.Module):
    """A network whose classifier is replaced: a map inside it passes a head to the logits.

    Args:
        network: loses its classifier, an identity stands in its place.
        path: the module whose output the head takes.
        classifier: the path of the network's own classifier.
        head: from that output to logits.
    """

    def __init__(self, network: nn.Module, path: str, classifier: str, head: nn.Module) -> None:
        super().__init__()
        parent, _, name = classifier.rpartition(".")
        module_at(network, classifier)
        setattr(network.get_submodule(parent), name, nn.Identity())
        self.network, self.head = network, head
        self._kept = _Keep()
        module_at(network, path).register_forward_hook(self._kept)

    def forward(self, images: Tensor) -> Tensor:
        self.network(images)
        recorded = self._kept.take()
        maps = as_map(recorded, self.network)
        logits: Tensor = self.head(recorded if maps is None else maps)
        return logits


class _Keep:
    # A class and not a closure: a deep copy of the network then records into its own copy. And not a list: torch.export
    # leaves another list behind in the place of a module's own.
    def __init__(self) -> None:
        self.tensor: Tensor | None = None

    def take(self) -> Tensor:
        taken, self.tensor = self.tensor, None
        assert taken is not None
        return taken

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.tensor = first_tensor(output)

"""Networks for the engine's tests, named as ``tests.engine.networks:NAME``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.models import InputSpec


class Small(nn.Module):
    """Two layers without batch statistics; with dropout it uses random numbers in every step."""

    def __init__(self, width: int, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(width * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


def small(*, num_classes: int, in_channels: int, width: int = 4, dropout: float = 0.0) -> Small:
    return Small(width, num_classes, in_channels, dropout)


def with_batch_norm(*, num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(144, num_classes),
    )


def diverging(*, num_classes: int, in_channels: int) -> nn.Module:
    network = small(num_classes=num_classes, in_channels=in_channels)
    with torch.no_grad():
        network.head.weight.mul_(1e30)
    return network


def two_stages(*, num_classes: int, in_channels: int) -> nn.Module:
    """A stage of 4×4 positions and one of 2×2, without batch statistics."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, num_classes),
    )


def broken(*, num_classes: int, in_channels: int) -> nn.Module:
    """It answers with NaN."""
    network = small(num_classes=num_classes, in_channels=in_channels)
    with torch.no_grad():
        network.body[0].weight.mul_(torch.nan)
    return network


def wants_larger(*, num_classes: int, in_channels: int) -> nn.Module:
    """It declares images of 16×16 pixels."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(256 * in_channels, num_classes))
    setattr(network, "input_spec", InputSpec((0.5,), (0.5,), (16, 16), "bilinear"))  # noqa: B010
    return network

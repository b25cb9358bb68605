"""A network that has learned the digits, and random logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.data import ImageData, Preprocess, load_data
from limbeck.models import create_model


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_data("digits")


@pytest.fixture(scope="session")
def learned(digits: ImageData) -> nn.Module:
    """A convolutional network of two stages, trained for a second; takes normalised images."""
    return learn(digits, "convnet(widths=[16,32])", steps=250, seed=0)


@pytest.fixture(scope="session")
def learned_less(digits: ImageData) -> nn.Module:
    return learn(digits, "convnet_tiny", steps=120, seed=1)


def learn(data: ImageData, name: str, *, steps: int, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = create_model(name, num_classes=10, in_channels=1, image_size=8).network
    images = Preprocess(data.mean, data.std)(data.train.images)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (64,), generator=generator)
        loss = nn.functional.cross_entropy(network(images[rows]), data.train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()

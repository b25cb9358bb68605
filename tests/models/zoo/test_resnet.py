"""The taps of the CIFAR ResNets; their counts and names are checked in tests/models/test_zoo.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models import create_model
from limbeck.stages import find_stages

from . import look, random_state

# name: blocks in a stage, channels of the stem and of the stages
NETWORKS = {
    "resnet8": (1, 16, (16, 32, 64)),
    "resnet20": (3, 16, (16, 32, 64)),
    "resnet110": (18, 16, (16, 32, 64)),
    "resnet8x4": (1, 32, (64, 128, 256)),
    "resnet32x4": (5, 32, (64, 128, 256)),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=7).network


def restated(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Stem, sums before the last ReLU of each stage, stages, and logits, from the numbers of the weights alone."""

    def unit(maps: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        maps = F.conv2d(maps, weight, stride=stride, padding=weight.shape[2] // 2)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts)

    stem = maps = F.relu(unit(images, "conv1", "bn1"))
    sums, stages = [], []
    for stage in (1, 2, 3):
        block = 0
        while (prefix := f"layer{stage}.{block}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and block == 0 else 1
            residual = unit(F.relu(unit(maps, f"{prefix}.conv1", f"{prefix}.bn1", stride)), *two(prefix))
            if f"{prefix}.downsample.0.weight" in state:
                maps = unit(maps, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stride)
            total = maps + residual
            maps = F.relu(total)
            block += 1
        sums.append(total)
        stages.append(maps)
    return stem, sums, stages, maps.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def two(prefix: str) -> tuple[str, str]:
    return f"{prefix}.conv2", f"{prefix}.bn2"


@pytest.mark.parametrize("name", NETWORKS)
def test_taps_have_the_published_shapes_and_meaning(name):
    blocks, stem, widths = NETWORKS[name]
    network = made(name)
    seen = look(network, torch.randn(2, 3, 32, 32))
    shapes = [(2, width, side, side) for width, side in zip(widths, (32, 16, 8), strict=True)]
    assert tuple(seen.stem.shape) == (2, stem, 32, 32)
    assert [tuple(value.shape) for value in seen.stages] == shapes
    assert all(value.min() == 0 for value in (seen.stem, *seen.stages))
    for value, before in zip(seen.stages, seen.preactivations, strict=True):
        assert before.min() < 0
        assert torch.equal(F.relu(before), value)
    assert network.stage_taps.preactivations == tuple(f"layer{stage}.{blocks - 1}.relu:input" for stage in (1, 2, 3))


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet8x4"])
def test_taps_are_the_arithmetic_of_the_paper(name):
    network = made(name).double().eval()
    state = random_state({key: tuple(tensor.shape) for key, tensor in network.state_dict().items()})
    network.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    stem, sums, stages, logits = restated(state, images)
    seen = look(network, images)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(seen.stem, stem, **close)
    torch.testing.assert_close(seen.preactivations, sums, **close)
    torch.testing.assert_close(seen.stages, stages, **close)
    torch.testing.assert_close(seen.logits, logits, **close)


@pytest.mark.parametrize("name", ["resnet20", "resnet8x4"])
def test_the_norm_of_a_preactivation_is_that_of_the_residual_branch(name):
    last = NETWORKS[name][0] - 1
    found = find_stages(made(name), torch.randn(2, 3, 32, 32))
    assert found.norms == tuple(f"layer{stage}.{last}.bn2" for stage in (1, 2, 3))


def test_a_gradient_from_a_preactivation_reaches_every_layer_before_it():
    network = made("resnet20")
    look(network, torch.randn(2, 3, 32, 32)).preactivations[-1].square().sum().backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {"fc.weight", "fc.bias"}
    assert all(parameter.grad.any() for parameter in network.parameters() if parameter.grad is not None)

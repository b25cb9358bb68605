"""VGG: counts, taps, torchvision's layers, the public names."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from limbeck.models import create_model
from limbeck.stages import find_stages

from . import Shapes, look, multiply_adds, norm_shapes, random_state, spread_of_convolutions

# name: convolutions' widths by block, parameters, multiply-adds in millions (32×32 RGB, 100 classes)
TABLE = {
    "vgg8": ([[64], [128], [256], [512], [512]], 3_965_028, 96.19),
    "vgg11": ([[64], [128], [256] * 2, [512] * 2, [512] * 2], 9_277_284, 209.44),
    "vgg13": ([[64] * 2, [128] * 2, [256] * 2, [512] * 2, [512] * 2], 9_462_180, 284.94),
    "vgg16": ([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], 14_774_436, 398.18),
    "vgg19": ([[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4], 20_086_692, 511.43),
}


def made(name: str, num_classes: int = 7, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=num_classes, in_channels=in_channels).network


def public_shapes(name: str, num_classes: int = 7) -> Shapes:
    """Every name in a public checkpoint: in a block, a convolution, a norm and a nameless ReLU by turns."""
    shapes: Shapes = {}
    inputs = 3
    for block, widths in enumerate(TABLE[name][0]):
        for number, width in enumerate(widths):
            convolution = f"block{block}.{3 * number}"
            shapes |= {f"{convolution}.weight": (width, inputs, 3, 3), f"{convolution}.bias": (width,)}
            shapes |= norm_shapes(f"block{block}.{3 * number + 1}", width)
            inputs = width
    return shapes | {"classifier.weight": (num_classes, 512), "classifier.bias": (num_classes,)}


def by_torchvision(name: str, state: dict[str, Tensor], images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The blocks before and after their last ReLU, and the logits, from a public checkpoint in torchvision's layers."""
    blocks = TABLE[name][0]
    plan = [layer for number, widths in enumerate(blocks) for layer in (*widths, *(["M"] if number < 3 else []))]
    with torch.device("meta"):
        layers = make_layers(plan, batch_norm=True).eval()
    for module in layers.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    # Both name the layers in the order in which they run.
    ours = [tensor for key, tensor in state.items() if key.startswith("block")]
    layers.load_state_dict(dict(zip(layers.state_dict(), ours, strict=True)), assign=True)
    outputs = [images]
    for layer in layers:
        outputs.append(layer(outputs[-1]))
    # A block ends where a pool follows, or the network's end, or the first convolution of the last block.
    ends = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    ends += [len(layers) - 3 * len(blocks[-1]), len(layers)]
    logits = outputs[-1].mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
    return [outputs[end - 1] for end in ends], [outputs[end] for end in ends], logits


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_those_of_the_published_table(name):
    blocks, parameters, millions = TABLE[name]
    by_hand = 512 * 100
    inputs = 3
    for widths, side in zip(blocks, (32, 16, 8, 4, 4), strict=True):
        by_hand += sum(9 * before * after * side**2 for before, after in pairwise([inputs, *widths]))
        inputs = widths[-1]
    with torch.device("meta"):
        network = made(name, num_classes=100)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert multiply_adds(network) == by_hand
    assert round(by_hand / 1e6, 2) == millions
    assert network.classifier.in_features == 512


@pytest.mark.parametrize("name", TABLE)
def test_it_is_torchvisions_layers_and_a_public_checkpoint_loads_as_it_is(name):
    state = random_state(public_shapes(name))
    with torch.device("meta"):
        network = made(name).eval()
    network.load_state_dict(state, assign=True)
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        seen = look(network, images)
        before, after, logits = by_torchvision(name, state, images)
    assert torch.equal(seen.stem, after[0])
    for ours, theirs in zip([*seen.stages, *seen.preactivations], [*after[1:], *before[1:]], strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(seen.logits, logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_taps_have_the_published_shapes_and_meaning(name):
    network = made(name)
    seen = look(network, torch.randn(2, 3, 32, 32))
    shapes = [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)]
    assert tuple(seen.stem.shape) == (2, 64, 32, 32)
    assert [tuple(value.shape[1:]) for value in seen.stages] == shapes
    assert all(value.min() == 0 for value in (seen.stem, *seen.stages))
    for value, before in zip(seen.stages, seen.preactivations, strict=True):
        assert before.min() < 0
        assert torch.equal(F.relu(before), value)


def test_the_norm_of_a_preactivation_is_the_last_of_its_block():
    found = find_stages(made("vgg16"), torch.randn(2, 3, 32, 32))
    assert found.norms == ("block1.4", "block2.7", "block3.7", "block4.7")


def test_the_fourth_block_is_not_pooled_whatever_the_size_of_the_image():
    seen = look(made("vgg8"), torch.randn(2, 3, 64, 64))
    assert [value.shape[2] for value in seen.stages] == [32, 16, 8, 8]


def test_weights_start_as_torchvisions_do():
    network = made("vgg8", num_classes=100)
    assert spread_of_convolutions(network) == pytest.approx([1.0] * 4, abs=0.05)
    assert float(network.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not any(tensor.any() for name, tensor in network.named_parameters() if name.endswith(("0.bias", "r.bias")))


@pytest.mark.parametrize("name", ["vgg8", "vgg13"])
def test_every_parameter_learns(name):
    # Not in train mode: a norm then takes the bias of the convolution before it away, and its gradient is rounding.
    network = made(name).eval()
    F.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert [key for key, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("size", [(8, 8), (33, 40), (64, 64)])
def test_other_sizes_and_one_grey_channel(size):
    network = made("vgg8", in_channels=1)
    network(torch.randn(2, 1, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, *size)).shape == (1, 7)

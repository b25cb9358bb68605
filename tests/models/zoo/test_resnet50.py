"""ResNet50 for small images: counts, taps, torchvision's network, the public names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50

from limbeck.models import create_model
from limbeck.stages import StageTaps, find_stages

from . import Shapes, look, multiply_adds, norm_shapes, random_state, spread_of_convolutions

# inputs, width of the 3×3 convolutions, blocks
STAGES = ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3))


def made(num_classes: int = 7, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model("ResNet50", num_classes=num_classes, in_channels=in_channels).network


def public_shapes(num_classes: int = 7) -> Shapes:
    """Every name in a public checkpoint, written out from the layout of its modules."""
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3)} | norm_shapes("bn1", 64)
    for stage, (stage_inputs, width, count) in enumerate(STAGES, start=1):
        outputs = 4 * width
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            inputs = stage_inputs if block == 0 else outputs
            shapes |= {f"{prefix}.conv1.weight": (width, inputs, 1, 1)} | norm_shapes(f"{prefix}.bn1", width)
            shapes |= {f"{prefix}.conv2.weight": (width, width, 3, 3)} | norm_shapes(f"{prefix}.bn2", width)
            shapes |= {f"{prefix}.conv3.weight": (outputs, width, 1, 1)} | norm_shapes(f"{prefix}.bn3", outputs)
            if block == 0:
                shapes |= {f"{prefix}.shortcut.0.weight": (outputs, inputs, 1, 1)}
                shapes |= norm_shapes(f"{prefix}.shortcut.1", outputs)
    return shapes | {"linear.weight": (num_classes, 2048), "linear.bias": (num_classes,)}


def test_counts_are_those_of_the_published_table():
    by_hand = 27 * 64 * 32**2 + 2048 * 100
    side = 32
    for inputs, width, count in STAGES:
        # The first convolution of a stage is still at the size of the stage before; the 3×3 one has the stride.
        after = side if width == 64 else side // 2
        by_hand += inputs * width * side**2 + (9 * width**2 + 4 * width**2 + inputs * 4 * width) * after**2
        by_hand += (count - 1) * (4 * width**2 + 9 * width**2 + 4 * width**2) * after**2
        side = after
    with torch.device("meta"):
        network = made(num_classes=100)
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_705_252
    assert multiply_adds(network) == by_hand
    assert round(by_hand / 1e6, 2) == 1298.01
    assert network.linear.in_features == 2048


def test_taps_have_the_published_shapes_and_meaning():
    seen = look(made(), torch.randn(2, 3, 32, 32))
    assert tuple(seen.stem.shape) == (2, 64, 32, 32)
    assert [tuple(value.shape[1:]) for value in seen.stages] == [
        (256, 32, 32),
        (512, 16, 16),
        (1024, 8, 8),
        (2048, 4, 4),
    ]
    assert all(value.min() == 0 for value in (seen.stem, *seen.stages))
    for value, before in zip(seen.stages, seen.preactivations, strict=True):
        assert before.min() < 0
        assert torch.equal(F.relu(before), value)


def test_the_norm_of_a_preactivation_is_the_last_of_the_residual_branch():
    found = find_stages(made(), torch.randn(2, 3, 16, 16))
    assert found.norms == ("layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3")


def test_with_a_public_checkpoint_it_is_torchvisions_network_with_another_stem():
    state = random_state(public_shapes())
    with torch.device("meta"):
        network = made().eval()
        other = resnet50(num_classes=7).eval()
        other.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    other.maxpool = nn.Identity()
    network.load_state_dict(network.public_names(state), assign=True)
    renamed = {name.replace("shortcut", "downsample").replace("linear", "fc"): state[name] for name in state}
    other.load_state_dict(renamed, assign=True)
    other.stage_taps = StageTaps(stages=("layer1", "layer2", "layer3", "layer4"), stem="maxpool")
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = look(network, images), look(other, images)
    assert torch.equal(ours.logits, theirs.logits)
    for value, reference in zip([ours.stem, *ours.stages], [theirs.stem, *theirs.stages], strict=True):
        assert torch.equal(value, reference)


def test_the_shortcut_alone_is_renamed():
    with torch.device("meta"):
        network = made()
    state = dict.fromkeys(public_shapes(), torch.zeros(1))
    ours = network.public_names(state)
    assert list(ours) == list(network.public_names(ours))
    assert set(ours) == set(network.state_dict())
    assert set(ours) - set(state) == {
        f"layer{stage}.0.downsample.{name}" for stage in (1, 2, 3, 4) for name in ("0.weight", *norm_shapes("1", 256))
    }
    wrapped = network.public_names({f"module.{name}": tensor for name, tensor in state.items()})
    assert list(wrapped) == [f"module.{name}" for name in ours]
    foreign = {"features.0.weight": torch.zeros(1), "shortcut.weight": torch.ones(1)}
    assert network.public_names(foreign) == foreign


def test_weights_start_at_kaimings_spread():
    assert spread_of_convolutions(made()) == pytest.approx([1.0] * 52, abs=0.05)


def test_every_parameter_learns():
    network = made()
    F.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("size", [(8, 8), (33, 40)])
def test_other_sizes_and_one_grey_channel(size):
    network = made(in_channels=1)
    network(torch.randn(2, 1, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, *size)).shape == (1, 7)

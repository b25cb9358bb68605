"""Wide ResNets: counts, taps, the arithmetic restated without modules, the public names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models import create_model
from limbeck.stages import find_stages
from limbeck.taps import Tapped

from . import Shapes, look, multiply_adds, norm_shapes, random_state, spread_of_convolutions

# name: depth, widening, parameters, multiply-adds in millions (32×32 RGB, 100 classes)
TABLE = {
    "wrn_16_1": (16, 1, 180_916, 26.66),
    "wrn_16_2": (16, 2, 703_284, 101.12),
    "wrn_40_1": (40, 1, 569_780, 83.29),
    "wrn_40_2": (40, 2, 2_255_156, 327.61),
}


def made(name: str, num_classes: int = 7, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=num_classes, in_channels=in_channels).network


def public_shapes(name: str, num_classes: int = 7) -> Shapes:
    """Every name in a public checkpoint, written out from the layout of its modules."""
    depth, widening, _, _ = TABLE[name]
    shapes: Shapes = {"conv1.weight": (16, 3, 3, 3)}
    inputs = 16
    for group, base in enumerate((16, 32, 64), start=1):
        outputs = base * widening
        for block in range((depth - 4) // 6):
            prefix = f"block{group}.layer.{block}"
            shapes |= norm_shapes(f"{prefix}.bn1", inputs) | {f"{prefix}.conv1.weight": (outputs, inputs, 3, 3)}
            shapes |= norm_shapes(f"{prefix}.bn2", outputs) | {f"{prefix}.conv2.weight": (outputs, outputs, 3, 3)}
            if inputs != outputs:
                shapes[f"{prefix}.convShortcut.weight"] = (outputs, inputs, 1, 1)
            inputs = outputs
    return shapes | norm_shapes("bn1", inputs) | {"fc.weight": (num_classes, inputs), "fc.bias": (num_classes,)}


def restated(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Stem, groups, groups after the next norm, and logits, from the numbers in a public checkpoint alone."""

    def norm(maps: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts)

    stem = maps = F.conv2d(images, state["conv1.weight"], padding=1)
    groups, normed = [], []
    for group in (1, 2, 3):
        block = 0
        while (prefix := f"block{group}.layer.{block}") + ".conv1.weight" in state:
            stride = 2 if group > 1 and block == 0 else 1
            before = norm(maps, f"{prefix}.bn1")
            if group > 1 and block == 0:
                normed.append(before)
            inner = F.conv2d(F.relu(before), state[f"{prefix}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(F.relu(norm(inner, f"{prefix}.bn2")), state[f"{prefix}.conv2.weight"], padding=1)
            if f"{prefix}.convShortcut.weight" in state:
                maps = F.conv2d(F.relu(before), state[f"{prefix}.convShortcut.weight"], stride=stride)
            maps = maps + inner
            block += 1
        groups.append(maps)
    normed.append(norm(maps, "bn1"))
    embedding = F.relu(normed[-1]).mean((2, 3))
    return stem, groups, normed, embedding @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_those_of_the_published_table(name):
    _, widening, parameters, millions = TABLE[name]
    sides = {"conv1": 32, "block1": 32, "block2": 16, "block3": 8, "fc": 1}
    by_hand = sum(
        torch.Size(shape).numel() * sides[key.split(".")[0]] ** 2
        for key, shape in public_shapes(name, num_classes=100).items()
        if len(shape) > 1
    )
    with torch.device("meta"):
        network = made(name, num_classes=100)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert multiply_adds(network) == by_hand
    assert round(by_hand / 1e6, 2) == millions
    assert network.fc.in_features == 64 * widening


@pytest.mark.parametrize("name", TABLE)
def test_taps_have_the_published_shapes_and_meaning(name):
    widening = TABLE[name][1]
    seen = look(made(name), torch.randn(2, 3, 32, 32))
    shapes = [(16 * widening, 32, 32), (32 * widening, 16, 16), (64 * widening, 8, 8)]
    assert tuple(seen.stem.shape) == (2, 16, 32, 32)
    assert [tuple(value.shape[1:]) for value in seen.stages] == shapes
    assert [tuple(value.shape[1:]) for value in seen.preactivations] == shapes
    # All are raw: the stem a bare convolution, a group a sum, a preactivation what a norm made of it.
    assert all(value.min() < 0 for value in (seen.stem, *seen.stages, *seen.preactivations))


@pytest.mark.parametrize("name", TABLE)
def test_a_public_checkpoint_computes_what_it_was_trained_to_compute(name):
    state = random_state(public_shapes(name))
    network = made(name).double().eval()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    stem, groups, normed, logits = restated(state, images)
    seen = look(network, images)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(seen.stem, stem, **close)
    torch.testing.assert_close(seen.stages, groups, **close)
    torch.testing.assert_close(seen.preactivations, normed, **close)
    torch.testing.assert_close(seen.logits, logits, **close)


def test_the_norm_of_a_preactivation_is_the_one_that_follows_the_group():
    found = find_stages(made("wrn_16_2"), torch.randn(2, 3, 32, 32))
    assert found.norms == ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")


def test_tapping_preactivations_updates_the_statistics_of_their_norms_once():
    # The public benchmarks run those norms a second time for this tap.
    plain, network = made("wrn_16_1").train(), made("wrn_16_1").train()
    tapped = Tapped(network, classifier="fc")
    for name, path in zip(network.stage_taps.stages, network.stage_taps.preactivations, strict=True):
        tapped.record("preactivations", name, path)
    images = torch.randn(2, 3, 16, 16)
    plain(images)
    signals = tapped(images)
    assert list(signals.preactivations) == ["block1", "block2", "block3"]
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_weights_start_at_kaimings_spread_and_the_classifier_without_bias():
    network = made("wrn_16_2")
    assert spread_of_convolutions(network) == pytest.approx([1.0] * 13, abs=0.08)
    assert not network.fc.bias.any()


@pytest.mark.parametrize("name", TABLE)
def test_every_parameter_learns(name):
    network = made(name)
    F.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert [key for key, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("size", [(8, 8), (33, 40), (64, 64)])
@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2"])
def test_other_sizes_and_one_grey_channel(name, size):
    network = made(name, in_channels=1)
    network(torch.randn(2, 1, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, *size)).shape == (1, 7)

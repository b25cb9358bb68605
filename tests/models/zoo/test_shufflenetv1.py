"""ShuffleNetV1: counts, taps before and after the ReLU, the arithmetic restated without modules, the public names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck.models import create_model

# inputs, outputs, units
STAGES = ((24, 240, 4), (240, 480, 8), (480, 960, 4))


def made(num_classes: int = 100, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model("shufflenetv1", num_classes=num_classes, in_channels=in_channels).network


def units() -> list[tuple[str, int, int]]:
    """Name, inputs and new channels of every unit; a stage's first unit has the rest of its outputs from its input."""
    return [
        (f"layer{stage}.{unit}", outputs if unit else inputs, outputs if unit else outputs - inputs)
        for stage, (inputs, outputs, count) in enumerate(STAGES, start=1)
        for unit in range(count)
    ]


def public_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Every name in a public checkpoint, written out from the layout of its modules."""
    convolutions = {"conv1": (24, 3, 1, 1)}
    norms = {"bn1": 24}
    for prefix, inputs, new in units():
        inner = new // 4
        convolutions[f"{prefix}.conv1"] = (inner, inputs if inputs == 24 else inputs // 3, 1, 1)
        convolutions[f"{prefix}.conv2"] = (inner, 1, 3, 3)
        convolutions[f"{prefix}.conv3"] = (new, inner // 3, 1, 1)
        norms |= {f"{prefix}.bn1": inner, f"{prefix}.bn2": inner, f"{prefix}.bn3": new}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in convolutions.items()}
    for name, channels in norms.items():
        shapes |= {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes | {"linear.weight": (num_classes, 960), "linear.bias": (num_classes,)}


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes.items():
        if not shape:
            state[name] = torch.tensor(3)
        elif len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            state[name] = torch.randn(shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5
        else:
            state[name] = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
    return state


def restated(state: dict[str, Tensor], images: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Maps before and after the ReLU of every unit, and the logits, from the numbers in a public checkpoint alone."""

    def norm(maps: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts)

    maps = F.relu(norm(F.conv2d(images, state["conv1.weight"]), "bn1"))
    seen = {"stem": (maps, maps)}
    for prefix, inputs, new in units():
        stride = 2 if prefix.endswith(".0") else 1
        groups = 1 if inputs == 24 else 3
        inner = F.relu(norm(F.conv2d(maps, state[f"{prefix}.conv1.weight"], groups=groups), f"{prefix}.bn1"))
        # Channel c of the result is channel (c % groups) · C / groups + c // groups of the input.
        order = [(c % groups) * (new // 4 // groups) + c // groups for c in range(new // 4)]
        depthwise = {"stride": stride, "padding": 1, "groups": new // 4}
        inner = F.conv2d(inner[:, order], state[f"{prefix}.conv2.weight"], **depthwise)
        inner = F.relu(norm(inner, f"{prefix}.bn2"))
        inner = norm(F.conv2d(inner, state[f"{prefix}.conv3.weight"], groups=3), f"{prefix}.bn3")
        if stride == 1:
            before = inner + maps
        else:
            before = torch.cat((inner, F.avg_pool2d(maps, 3, stride=2, padding=1)), dim=1)
        maps = F.relu(before)
        seen[prefix] = (before, maps)
    return seen, maps.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def tapped(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What runs past the declared paths, by reference: a layer that overwrote a tap would be seen."""
    found: dict[str, Tensor] = {}
    taps = network.stage_taps
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: found.update({path: output})
        )
        for path in (taps.stem, *taps.stages)
    ]
    handles += [
        network.get_submodule(path.removesuffix(":input")).register_forward_pre_hook(
            lambda module, inputs, path=path: found.update({path: inputs[0]})
        )
        for path in taps.preactivations
    ]
    logits = network(images)
    for handle in handles:
        handle.remove()
    return found, logits


def test_counts_are_those_of_the_published_table():
    network = made().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 949_258
    assert counter.get_total_flops() == 2 * 38_691_456
    assert network.linear.in_features == 960


def test_taps_have_the_published_shapes():
    network = made().eval()
    found, _ = tapped(network, torch.randn(1, 3, 32, 32))
    shapes = [tuple(found[path].shape[1:]) for path in (network.stage_taps.stem, *network.stage_taps.stages)]
    assert shapes == [(24, 32, 32), (240, 16, 16), (480, 8, 8), (960, 4, 4)]


@pytest.mark.parametrize("training", [True, False])
def test_a_stage_is_the_relu_of_its_preactivation(training):
    network = made().train(training)
    found, _ = tapped(network, torch.randn(2, 3, 32, 32))
    taps = network.stage_taps
    for stage, before in zip(taps.stages, taps.preactivations, strict=True):
        assert (found[before] < 0).any()
        assert torch.equal(found[before].relu(), found[stage])
    assert found[taps.stem].min() == 0


def test_a_public_checkpoint_loads_and_computes_what_it_was_trained_to_compute():
    state = random_state(public_shapes(num_classes=7))
    network = made(num_classes=7).double().eval()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    seen, logits = restated(state, images)
    found, ours = tapped(network, images)
    torch.testing.assert_close(ours, logits, rtol=1e-9, atol=1e-9)
    for stage, last in (("layer1", "layer1.3"), ("layer2", "layer2.7"), ("layer3", "layer3.3")):
        torch.testing.assert_close(found[stage], seen[last][1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found[f"{last}.relu:input"], seen[last][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["relu"], seen["stem"][1], rtol=1e-9, atol=1e-9)


def test_every_parameter_learns():
    network = made(num_classes=10)
    F.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("size", [(8, 8), (33, 40), (64, 64)])
def test_other_sizes_and_one_grey_channel(size):
    network = made(num_classes=10, in_channels=1)
    network(torch.randn(2, 1, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, *size)).shape == (1, 10)

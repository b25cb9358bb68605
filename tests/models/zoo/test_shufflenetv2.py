"""ShuffleNetV2: counts, taps, torchvision's network, the arithmetic restated without modules, the public names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import shufflenet_v2_x1_0

from limbeck.models import create_model

# inputs, outputs, units
STAGES = ((24, 116, 4), (116, 232, 8), (232, 464, 4))


def made(num_classes: int = 100, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model("shufflenetv2", num_classes=num_classes, in_channels=in_channels).network


def public_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Every name in a public checkpoint, written out from the layout of its modules."""
    convolutions = {"conv1": (24, 3, 1, 1), "conv2": (1024, 464, 1, 1)}
    for stage, (inputs, outputs, count) in enumerate(STAGES, start=1):
        half = outputs // 2
        convolutions[f"layer{stage}.0.conv1"] = (inputs, 1, 3, 3)
        convolutions[f"layer{stage}.0.conv2"] = (half, inputs, 1, 1)
        convolutions[f"layer{stage}.0.conv3"] = (half, inputs, 1, 1)
        convolutions[f"layer{stage}.0.conv4"] = (half, 1, 3, 3)
        convolutions[f"layer{stage}.0.conv5"] = (half, half, 1, 1)
        for unit in range(1, count):
            convolutions[f"layer{stage}.{unit}.conv1"] = (half, half, 1, 1)
            convolutions[f"layer{stage}.{unit}.conv2"] = (half, 1, 3, 3)
            convolutions[f"layer{stage}.{unit}.conv3"] = (half, half, 1, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in convolutions.items():
        norm = name.replace("conv", "bn")
        shapes[f"{name}.weight"] = shape
        shapes |= {f"{norm}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | {"linear.weight": (num_classes, 1024), "linear.bias": (num_classes,)}


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


def restated(state: dict[str, Tensor], images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Outputs of the stem and of the stages, and the logits, from the numbers in a public checkpoint alone."""

    def unit(maps: Tensor, prefix: str, number: int, **options: int) -> Tensor:
        maps = F.conv2d(maps, state[f"{prefix}conv{number}.weight"], **options)
        parts = (state[f"{prefix}bn{number}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts)

    def depthwise(maps: Tensor, prefix: str, number: int, stride: int) -> Tensor:
        return unit(maps, prefix, number, stride=stride, padding=1, groups=maps.shape[1])

    def interleaved(left: Tensor, right: Tensor) -> Tensor:
        # The shuffle in two groups: one channel of the left, one of the right, and so on.
        return torch.stack((left, right), dim=2).reshape(len(left), -1, *left.shape[2:])

    maps = F.relu(unit(images, "", 1))
    outputs = [maps]
    for stage, (_, width, count) in enumerate(STAGES, start=1):
        prefix = f"layer{stage}.0."
        left = F.relu(unit(depthwise(maps, prefix, 1, stride=2), prefix, 2))
        right = depthwise(F.relu(unit(maps, prefix, 3)), prefix, 4, stride=2)
        maps = interleaved(left, F.relu(unit(right, prefix, 5)))
        for later in range(1, count):
            prefix = f"layer{stage}.{later}."
            # The first half passes by; the second is convolved.
            kept, right = maps[:, : width // 2], maps[:, width // 2 :]
            right = depthwise(F.relu(unit(right, prefix, 1)), prefix, 2, stride=1)
            maps = interleaved(kept, F.relu(unit(right, prefix, 3)))
        outputs.append(maps)
    embedding = F.relu(unit(maps, "", 2)).mean((2, 3))
    return outputs, embedding @ state["linear.weight"].T + state["linear.bias"]


def tapped(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    found: dict[str, Tensor] = {}
    paths = (network.stage_taps.stem, *network.stage_taps.stages)
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: found.update({path: output})
        )
        for path in paths
    ]
    logits = network(images)
    for handle in handles:
        handle.remove()
    return [found[path] for path in paths], logits


def test_counts_are_those_of_the_published_table():
    network = made().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_355_528
    assert counter.get_total_flops() == 2 * 44_504_448
    assert network.linear.in_features == 1024


def test_taps_have_the_published_shapes_and_are_after_the_relu():
    network = made()
    found, _ = tapped(network, torch.randn(2, 3, 32, 32))
    assert [tuple(value.shape[1:]) for value in found] == [(24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4)]
    assert all(value.min() == 0 for value in found)
    assert network.stage_taps.preactivations == ()


def test_it_is_torchvisions_network_with_another_stem():
    network = made(num_classes=7).double().eval()
    network.load_state_dict(network.public_names(random_state(public_shapes(num_classes=7))))
    other = shufflenet_v2_x1_0(num_classes=7).double().eval()
    other.conv1[0] = nn.Conv2d(3, 24, kernel_size=1, bias=False, dtype=torch.float64)
    other.maxpool = nn.Identity()
    parts = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv5.0", "bn2": "conv5.1", "linear": "fc"}
    parts |= {"layer1": "stage2", "layer2": "stage3", "layer3": "stage4"}
    renamed = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.partition(".")
        renamed[f"{parts[part]}.{rest}"] = tensor
    other.load_state_dict(renamed)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(images), other(images), rtol=1e-12, atol=1e-12)


def test_a_public_checkpoint_computes_under_our_names_what_it_was_trained_to_compute():
    state = random_state(public_shapes(num_classes=7))
    network = made(num_classes=7).double().eval()
    network.load_state_dict(network.public_names(state))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    outputs, logits = restated(state, images)
    found, ours = tapped(network, images)
    torch.testing.assert_close(ours, logits, rtol=1e-9, atol=1e-9)
    for value, reference in zip(found, outputs, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-9)


def test_names_are_changed_inside_units_alone_and_only_once():
    network = made(num_classes=7)
    state = random_state(public_shapes(num_classes=7))
    ours = network.public_names(state)
    assert list(network.public_names(ours)) == list(ours)
    assert ours["layer2.0.branch1.3.running_var"] is state["layer2.0.bn2.running_var"]
    assert ours["layer3.3.branch2.5.weight"] is state["layer3.3.conv3.weight"]
    kept = {"conv1.weight", "bn1.bias", "conv2.weight", "bn2.running_mean", "linear.weight"}
    assert all(ours[name] is state[name] for name in kept)
    foreign = {"features.0.weight": torch.zeros(1), "layer4.0.conv1.weight": torch.zeros(1)}
    assert network.public_names(foreign) == foreign


def test_names_are_changed_behind_the_prefix_of_a_wrapper():
    state = random_state(public_shapes(num_classes=7))
    network = made(num_classes=7)
    wrapped = network.public_names({f"module.{name}": tensor for name, tensor in state.items()})
    assert list(wrapped) == [f"module.{name}" for name in network.public_names(state)]


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

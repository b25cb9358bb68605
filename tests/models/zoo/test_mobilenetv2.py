"""MobileNetV2 at half width: counts, taps, the arithmetic restated without modules, and the public names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck.models import create_model

# (inputs, outputs, expansion, stride) of every block, by group
GROUPS = (
    ((16, 8, 1, 1),),
    ((8, 12, 6, 1), (12, 12, 6, 1)),
    ((12, 16, 6, 2), (16, 16, 6, 1), (16, 16, 6, 1)),
    ((16, 32, 6, 2), (32, 32, 6, 1), (32, 32, 6, 1), (32, 32, 6, 1)),
    ((32, 48, 6, 1), (48, 48, 6, 1), (48, 48, 6, 1)),
    ((48, 80, 6, 2), (80, 80, 6, 1), (80, 80, 6, 1)),
    ((80, 160, 6, 1),),
)


def made(num_classes: int = 100, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model("mobilenetv2_half", num_classes=num_classes, in_channels=in_channels).network


def public_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Every name in a public checkpoint, written out from the layout of its modules."""
    convolutions = {"conv1.0": (16, 3, 3, 3), "conv2.0": (1280, 160, 1, 1)}
    norms = {"conv1.1": 16, "conv2.1": 1280}
    for group, blocks in enumerate(GROUPS):
        for block, (inputs, outputs, expansion, _) in enumerate(blocks):
            inner, prefix = inputs * expansion, f"blocks.{group}.{block}.conv"
            convolutions[f"{prefix}.0"] = (inner, inputs, 1, 1)
            convolutions[f"{prefix}.3"] = (inner, 1, 3, 3)
            convolutions[f"{prefix}.6"] = (outputs, inner, 1, 1)
            norms |= {f"{prefix}.1": inner, f"{prefix}.4": inner, f"{prefix}.7": outputs}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in convolutions.items()}
    for name, channels in norms.items():
        shapes |= {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes | {"classifier.0.weight": (num_classes, 1280), "classifier.0.bias": (num_classes,)}


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
    """Outputs of the stem and of all groups, and the logits, from the numbers in a public checkpoint alone."""

    def unit(maps: Tensor, convolution: str, norm: str, **options: int) -> Tensor:
        maps = F.conv2d(maps, state[f"{convolution}.weight"], **options)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts)

    maps = F.relu(unit(images, "conv1.0", "conv1.1", stride=2, padding=1))
    outputs = [maps]
    for group, blocks in enumerate(GROUPS):
        for block, (inputs, into, expansion, stride) in enumerate(blocks):
            prefix = f"blocks.{group}.{block}.conv"
            inner = F.relu(unit(maps, f"{prefix}.0", f"{prefix}.1"))
            depthwise = {"stride": stride, "padding": 1, "groups": inputs * expansion}
            inner = F.relu(unit(inner, f"{prefix}.3", f"{prefix}.4", **depthwise))
            projected = unit(inner, f"{prefix}.6", f"{prefix}.7")
            maps = maps + projected if (stride, inputs) == (1, into) else projected
        outputs.append(maps)
    embedding = F.relu(unit(maps, "conv2.0", "conv2.1")).mean((2, 3))
    return outputs, embedding @ state["classifier.0.weight"].T + state["classifier.0.bias"]


def tapped(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: found.update({path: output})
        )
        for path in (network.stage_taps.stem, *network.stage_taps.stages)
    ]
    logits = network(images)
    for handle in handles:
        handle.remove()
    return found, logits


def test_counts_are_those_of_the_published_table():
    network = made().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 812_836
    assert counter.get_total_flops() == 2 * 6_523_648
    assert network.classifier[0].in_features == 1280


def test_taps_have_the_published_shapes():
    found, _ = tapped(made().eval(), torch.randn(1, 3, 32, 32))
    shapes = {path: tuple(value.shape[1:]) for path, value in found.items()}
    assert shapes == {
        "conv1": (16, 16, 16),
        "blocks.1": (12, 16, 16),
        "blocks.2": (16, 8, 8),
        "blocks.4": (48, 4, 4),
        "blocks.6": (160, 2, 2),
    }


def test_stages_are_linear_and_the_stem_is_after_its_relu():
    network = made()
    found, _ = tapped(network, torch.randn(4, 3, 32, 32))
    assert network.stage_taps.preactivations == ()
    assert found.pop("conv1").min() == 0
    assert all((value < 0).any() for value in found.values())


def test_a_public_checkpoint_loads_and_computes_what_it_was_trained_to_compute():
    state = random_state(public_shapes(num_classes=7))
    network = made(num_classes=7).double().eval()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    groups, logits = restated(state, images)
    found, ours = tapped(network, images)
    torch.testing.assert_close(ours, logits, rtol=1e-9, atol=1e-9)
    expected = [groups[0], *(groups[1 + group] for group in (1, 2, 4, 6))]
    for value, reference in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-9)


def test_weights_begin_as_the_benchmarks_begin_them():
    network = made()
    stem, last = network.conv1[0].weight, network.conv2[0].weight
    assert stem.std().item() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)
    assert last.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
    assert network.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not network.classifier[0].bias.any()


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

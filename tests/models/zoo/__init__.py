"""What tests of several families share: what a network's declared taps see, and made-up checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Seen:
    """What the taps that a network declares saw in one forward pass, read with plain hooks."""

    logits: Tensor
    stem: Tensor
    stages: list[Tensor]
    preactivations: list[Tensor]


def look(network: nn.Module, images: Tensor) -> Seen:
    taps = network.stage_taps
    found: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(path: str, value: Tensor) -> None:
        found[path], versions[path] = value, value._version

    handles = []
    for path in (taps.stem, *taps.stages, *taps.preactivations):
        module = network.get_submodule(path.removesuffix(":input"))
        if path.endswith(":input"):
            hook = module.register_forward_pre_hook(lambda module, inputs, path=path: keep(path, inputs[0]))
        else:
            hook = module.register_forward_hook(lambda module, inputs, output, path=path: keep(path, output))
        handles.append(hook)
    logits = network(images)
    for handle in handles:
        handle.remove()
    assert {path: value._version for path, value in found.items()} == versions, "a later layer overwrote a tap in place"
    return Seen(
        logits,
        found[taps.stem],
        [found[path] for path in taps.stages],
        [found[path] for path in taps.preactivations],
    )


def multiply_adds(network: nn.Module) -> int:
    """Of one 32×32 RGB image; for a network on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2


def norm_shapes(name: str, channels: int) -> Shapes:
    """The names that a batch norm has in a checkpoint."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """float64 numbers for the names; those of batch norms are far from what a new network has, running means included."""
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


def spread_of_convolutions(network: nn.Module) -> list[float]:
    """The standard deviation of each large convolution's weights over that of Kaiming's normal in fan-out mode."""
    return [
        float(module.weight.detach().std() / (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000
    ]

"""What a network costs: parameters, operations, bytes, time and memory on this device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from limbeck.evaluate.kinds import Count, Positive
from limbeck.machine import device_name
from limbeck.taps import evaluating

Forward = Callable[[Tensor], Any]

_WARM_UP = 3
_FEWEST, _MOST = 7, 200
_SECONDS = 2.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass of ``batch`` images (or texts), over ``repeats`` passes: median and quartiles.

    images_per_second: batch over the median, also of texts.
    """

    batch: Count
    repeats: Count
    median_ms: Positive
    low_ms: Positive
    high_ms: Positive
    images_per_second: Positive


@dataclass(frozen=True)
class Cost:
    """What a network costs on one image of ``input`` (channels, height, width), preprocessing left out, or on one text of
    ``input`` tokens.

    macs: multiply-accumulates of convolutions, products of matrices and attention in one forward pass of one image, half of
    PyTorch's count of their operations; the rest (normalisation, activations) is not counted. bytes: what its weights and
    buffers take in their own precision, nearly what a safetensors file of it takes. file_bytes: of the weights file, if any.
    latency: at batch 1 and at the batch asked for. memory_bytes: the most bytes of tensors alive at a time in a forward pass of
    the larger batch, its input and the weights among them; workspaces inside of operations are not counted.
    allocated_bytes: the most that PyTorch's allocator held, on a GPU; None elsewhere.
    """

    input: tuple[Count, ...]
    parameters: Count
    macs: Count
    bytes: Count
    file_bytes: Count | None
    latency: tuple[Latency, ...]
    memory_bytes: Count
    allocated_bytes: Count | None


@dataclass(frozen=True)
class Ratios:
    """The teacher's figure over the student's: how many times smaller or faster the student is; None where it has none."""

    parameters: Positive | None
    macs: Positive | None
    bytes: Positive | None
    latency: tuple[Positive, ...]
    memory_bytes: Positive | None


@dataclass(frozen=True)
class Costs:
    """Costs of networks on one device, and where there is a teacher its figures over those of each other network."""

    device: str
    networks: Mapping[str, Cost]
    ratios: Mapping[str, Ratios] | None


@torch.no_grad()
def costs(
    networks: Mapping[str, tuple[nn.Module, Tensor]],
    *,
    batch_size: int = 128,
    files: Mapping[str, Path | None] | None = None,
    teacher: str | None = None,
) -> Costs:
    """Costs of networks, each with one image (1, C, H, W) as it takes it, on its own device.

    Time is taken in turns (first network, second, first, …), so that a machine that slows down does so for all. ``files`` are
    their weights files. ``teacher`` names the one that the others are compared with, if it is among them.
    """
    device = next(iter(networks.values()))[1].device
    latencies: dict[str, tuple[Latency, ...]] = dict.fromkeys(networks, ())
    for size in dict.fromkeys((1, batch_size)):
        inputs = {who: image.repeat(size, *[1] * (image.ndim - 1)) for who, (_, image) in networks.items()}
        timed = latency({who: networks[who][0] for who in networks}, inputs)
        latencies = {who: (*latencies[who], timed[who]) for who in networks}
    found = {
        who: _cost(network, image, batch_size, latencies[who], (files or {}).get(who))
        for who, (network, image) in networks.items()
    }
    theirs = found.get(teacher or "")
    over = {who: ratios(theirs, each) for who, each in found.items() if who != teacher} if theirs else None
    return Costs(device_name(device), found, over)


def _cost(network: nn.Module, image: Tensor, batch: int, latencies: tuple[Latency, ...], file: Path | None) -> Cost:
    memory, allocated = peak_memory(network, image.repeat(batch, *[1] * (image.ndim - 1)))
    return Cost(
        input=tuple(image.shape[1:]),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs(network, image),
        bytes=weight_bytes(network),
        file_bytes=file.stat().st_size if file is not None and file.is_file() else None,
        latency=latencies,
        memory_bytes=memory,
        allocated_bytes=allocated,
    )


def ratios(teacher: Cost, student: Cost) -> Ratios:
    """Teacher over student."""
    return Ratios(
        parameters=_over(teacher.parameters, student.parameters),
        macs=_over(teacher.macs, student.macs),
        bytes=_over(teacher.bytes, student.bytes),
        latency=tuple(
            ours.median_ms / mine.median_ms for ours, mine in zip(teacher.latency, student.latency, strict=True)
        ),
        memory_bytes=_over(teacher.memory_bytes, student.memory_bytes),
    )


def _over(one: int, other: int) -> float | None:
    return one / other if other else None


@torch.no_grad()
def macs(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of a forward pass, as :class:`Cost` has them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fused attention of nn.MultiheadAttention is one operation that the counter does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(network), FlopCounterMode(display=False) as counter:
            network(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights and buffers; what several names share counts once."""
    tensors = {value.untyped_storage().data_ptr(): value for value in network.state_dict().values()}
    return sum(value.numel() * value.element_size() for value in tensors.values())


@torch.no_grad()
def latency(networks: Mapping[str, Forward], inputs: Mapping[str, Tensor]) -> dict[str, Latency]:
    """Time of forward passes, the networks in turn: 7 to 200 each, two seconds' worth, after three that do not count."""
    times: dict[str, list[float]] = {who: [] for who in networks}
    for who in networks:
        for _ in range(_WARM_UP):
            _timed(networks[who], inputs[who])
    begun = time.perf_counter()
    for repeat in range(_MOST):
        if repeat >= _FEWEST and time.perf_counter() - begun > _SECONDS * len(networks):
            break
        for who, network in networks.items():
            times[who].append(_timed(network, inputs[who]))
    return {who: _latency(len(inputs[who]), values) for who, values in times.items()}


def _timed(network: Forward, inputs: Tensor) -> float:
    _wait(inputs.device)
    begun = time.perf_counter()
    network(inputs)
    _wait(inputs.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def _latency(batch: int, seconds: list[float]) -> Latency:
    low, median, high = (1000 * float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Latency(batch, len(seconds), median, low, high, 1000 * batch / median)


@torch.no_grad()
def peak_memory(network: nn.Module, inputs: Tensor) -> tuple[int, int | None]:
    """Most bytes of tensors alive in a forward pass, and on a GPU the most that was allocated."""
    on_gpu = inputs.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(inputs.device)
    with evaluating(network):
        network(inputs)
        allocated = torch.cuda.max_memory_allocated(inputs.device) if on_gpu else None
        with _LiveBytes() as live:
            network(inputs)
    return live.peak + weight_bytes(network) + inputs.numel() * inputs.element_size(), allocated


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, from the moment that they are made until they are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What goes in was made before, or is a weight: views and results of work in place share its storage.
        given = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and _storage(value) not in given | self._known:
                self._add(value)
        return made

    def _add(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storage(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)

"""Which memory format and precision is fastest here, found by trying each for a moment."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from limbeck.distributed import world_size
from limbeck.random_state import RandomState
from limbeck.signals import Batch, Signals, tensors_in

MARGIN = 0.05
T = TypeVar("T")
Make = Callable[["Layout"], Callable[[], object]]


@dataclass(frozen=True)
class Layout:
    """How tensors lie in memory and what products are computed in."""

    channels_last: bool = False
    bf16: bool = False

    def __str__(self) -> str:
        return f"{'channels_last' if self.channels_last else 'contiguous'} {'bf16' if self.bf16 else 'fp32'}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The format of 4-dimensional tensors."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def of(self, inputs: Any) -> Any:
        """Images in this format; what has no (B, C, H, W) shape stays as it is."""
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            return inputs
        return inputs.contiguous(memory_format=self.memory_format)


@dataclass(frozen=True)
class Found:
    """What a probe chose.

    seconds: the median time of the simplest one. ratios: by layout, the median over rounds of its time to the simplest one's
    in the same round; the simplest has 1. failed: by layout, why it could not run.
    """

    layout: Layout
    seconds: float
    ratios: Mapping[Layout, float]
    failed: Mapping[Layout, str] = field(default_factory=dict)

    def __str__(self) -> str:
        simplest = next(iter(self.ratios))
        others = [f"{layout} {ratio:.2f}" for layout, ratio in self.ratios.items() if layout != simplest]
        others += [f"{layout} failed ({why})" for layout, why in self.failed.items()]
        return f"{self.layout}" + (f" (time to {simplest}: {', '.join(others)})" if others else "")


def fastest_layout(
    make: Make,
    device: torch.device | str,
    layouts: Sequence[Layout],
    *,
    margin: float = MARGIN,
    rounds: int = 7,
    seconds: float = 3.0,
) -> Found:
    """The layout in which a piece of work takes least time; the first one unless another wins by more than ``margin``.

    Each layout runs once untimed, then all in turn, until there are enough rounds or the seconds are over, but at least
    twice. Random states are as before afterwards. Processes of one run may find different layouts; let one decide.

    Args:
        make: the work in a layout, as :func:`training_step` and :func:`forward_pass` make it. It must change nothing that
            others use.
        device: where it runs.
        layouts: those to try, the simplest first. Channels-last is for (B, C, H, W) inputs; bfloat16 changes the numbers.
        margin: share of the first layout's time that another must save, 0 to 1.
        rounds, seconds: the most that is spent, whatever comes first.

    Raises:
        Exception: whatever the work raises in the first layout. A layout that fails otherwise is left out and named.
    """
    simplest = layouts[0]
    device = torch.device(device)
    failed: dict[Layout, str] = {}
    works: dict[Layout, Callable[[], object]] = {}
    with _same_random_states():
        for layout in layouts:
            try:
                works[layout] = make(layout)
                _timed(works[layout], device)
            except Exception as error:  # kernels for a format or precision may be missing, or memory for the trial
                if layout == simplest:
                    raise
                works.pop(layout, None)
                failed[layout] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        times = _in_turn(works, device, rounds if len(works) > 1 else 0, seconds)
    ratios = {
        layout: statistics.median([a / b for a, b in zip(found, times[simplest], strict=True)] or [1.0])
        for layout, found in times.items()
    }
    best = min(ratios, key=lambda layout: ratios[layout])
    chosen = best if ratios[best] < 1 - margin else simplest
    return Found(chosen, statistics.median(times[simplest] or [0.0]), ratios, failed)


def training_step(trainable: nn.Module, inputs: Any, teacher: Signals, batch: Batch) -> Make:
    """Forward and backward of a copy of the trainable module, for :func:`fastest_layout`.

    Args:
        trainable: a :class:`~limbeck.engine.trainable.Trainable`, already built, on its device and not compiled. Neither its
            weights, buffers and gradients nor its heads' memories change.
        inputs: the student's input for ``batch``.
        teacher: the teacher's signals for ``batch``.
    """

    def make(layout: Layout) -> Callable[[], object]:
        own = copy.deepcopy(trainable).train()
        own.to(memory_format=layout.memory_format)
        images = layout.of(inputs)

        def step() -> None:
            own.zero_grad(set_to_none=True)
            with _precision(layout, images):
                terms, _ = own(images, teacher, batch)
            torch.stack(list(terms.values())).sum().backward()

        return step

    return make


def forward_pass(network: nn.Module, inputs: Any) -> Make:
    """Forward of a copy of a network in eval mode and without gradient, for :func:`fastest_layout`."""

    def make(layout: Layout) -> Callable[[], object]:
        own = copy.deepcopy(network).eval()
        own.to(memory_format=layout.memory_format)
        images = layout.of(inputs)

        def forward() -> None:
            with torch.no_grad(), _precision(layout, images):
                own(images)

        return forward

    return make


def together(parts: Sequence[Make]) -> Make:
    """Several pieces of work, one after another."""

    def make(layout: Layout) -> Callable[[], object]:
        works = [part(layout) for part in parts]
        return lambda: [work() for work in works]

    return make


def agreed(choice: T) -> T:
    """The first process's choice, in all of them: their clocks differ."""
    told = [choice]
    if world_size() > 1:
        dist.broadcast_object_list(told)
    return told[0]


def _precision(layout: Layout, inputs: Any) -> torch.autocast:
    return torch.autocast(tensors_in(inputs)[0].device.type, torch.bfloat16, enabled=layout.bf16)


def _in_turn(
    works: Mapping[Layout, Callable[[], object]], device: torch.device, rounds: int, seconds: float
) -> dict[Layout, list[float]]:
    times: dict[Layout, list[float]] = {layout: [] for layout in works}
    started = time.perf_counter()
    for number in range(rounds):
        if number >= 2 and time.perf_counter() - started > seconds:
            break
        for layout, work in works.items():
            times[layout].append(_timed(work, device))
    return times


def _timed(work: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _same_random_states() -> Iterator[None]:
    before = RandomState.now()
    try:
        yield
    finally:
        before.restore()

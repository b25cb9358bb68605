"""What the benchmarks share: data of CIFAR's shape, work that is timed in turn, ratios within a round, the machine's facts."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from limbeck.data import ImageData, ImageSplit
from limbeck.engine.callbacks import Callback
from limbeck.machine import command_line, versions

CLASSES, SIDE, MEAN, STD = 100, 32, 0.5, 0.25
EPOCHS = 240  # what limbeck is told, so that it settles in as for a whole training; the rounds end it
_FEWEST_ROUNDS = 2
_PROC_STATUS, _CPU_INFO = Path("/proc/self/status"), Path("/proc/cpuinfo")


def random_images(count: int) -> ImageData:
    """Training data of CIFAR-100's shape, uint8 (count, 3, 32, 32) with 100 classes, seen in its 162 views."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    split = ImageSplit(images, torch.arange(count) % CLASSES, torch.arange(count))
    names = tuple(str(number) for number in range(CLASSES))
    return ImageData("random", split, None, None, names, 3, (SIDE, SIDE), (MEAN,) * 3, (STD,) * 3)


# -- options and facts -------------------------------------------------------------------------------------------------


def add_common_options(parser: argparse.ArgumentParser, *, steps: int, rounds: int, minutes: float) -> None:
    """The options that the benchmarks in turns have in common."""
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=steps, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=rounds, help="the most that are measured")
    parser.add_argument("--minutes", type=float, default=minutes, help="no further round for a pair after these")
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 leaves PyTorch's own number")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE", help="write what was found there too")


def check_rounds(parser: argparse.ArgumentParser, rounds: int) -> None:
    """End with a message unless there are enough rounds for quartiles, and no more than a training has epochs."""
    if not _FEWEST_ROUNDS <= rounds < EPOCHS:
        parser.error(f"rounds are {_FEWEST_ROUNDS} to {EPOCHS - 1}: quartiles need some, got {rounds}.")


def has_bf16() -> bool:
    """Whether the CPU computes with bfloat16 by instructions of its own; False where it does not tell."""
    try:
        flags = _CPU_INFO.read_text().replace("\n", " ").split(" ")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def machine(device: str, threads: int) -> dict[str, Any]:
    """What a figure must be read with: the command, the hardware, the versions, and how busy the machine was."""
    if threads:
        torch.set_num_threads(threads)
    return {
        "command": command_line(),
        "device": _device_name(device),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": has_bf16(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        # Of others too: figures from a busy machine are to be taken as such.
        "load": round(os.getloadavg()[0], 2),
        "versions": versions() | _versions("torchdistill"),
    }


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = [line.partition(":") for line in _CPU_INFO.read_text().splitlines()]
    except OSError:
        lines = []
    models = [value.strip() for name, _, value in lines if name.strip() == "model name"]
    return models[0] if models else platform.processor() or platform.machine()


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# -- turns -------------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds of a block, with what a GPU still had to do in it."""

    def __init__(self, device: str | torch.device) -> None:
        self._gpu = torch.device(device).type == "cuda"

    def now(self) -> float:
        if self._gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


class Turns:
    """A process's side of the rounds: it gets ready, then works when it is told to, and waits in between.

    Walk over it, once a turn, or call ``begin`` and ``end`` around each.
    """

    def __init__(self, connection: Connection, device: str) -> None:
        self._connection, self._clock = connection, Clock(device)
        self._started = 0.0
        self.notes: dict[str, Any] = {}

    def begin(self) -> bool:
        """Wait for the next turn and start the clock; False when there is none."""
        self._connection.send(None)
        if not self._connection.recv():
            return False
        self._started = self._clock.now()
        return True

    def end(self) -> None:
        """The turn's work is done."""
        self._connection.send(self._clock.now() - self._started)

    def __iter__(self) -> Iterator[None]:
        while self.begin():
            yield
            self.end()


class Paced(Callback):
    """Makes each turn so many epochs of a limbeck loop, which ends with the last turn."""

    def __init__(self, turns: Turns, *, learners: int = 1, epochs: int = 1) -> None:
        self.turns, self.learners, self.epochs = turns, learners, epochs

    def on_start(self, loop: Any) -> None:
        if len(loop.learners) != self.learners:
            raise RuntimeError(
                f"{len(loop.learners)} students share the pass instead of {self.learners}: memory is short."
            )
        self.turns.notes["channels_last"] = loop.teacher_task.channels_last
        self.turns.begin()

    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.epoch % self.epochs == 0:
            self.turns.end()
            loop.stop = not self.turns.begin()


@dataclass(frozen=True)
class Way:
    """One way of doing the work: a function of a module, which gets the turns and these arguments in its own process.

    samples: of a turn.
    """

    name: str
    work: Callable[..., None]
    arguments: Mapping[str, Any]
    samples: int


@dataclass
class Timed:
    """What was found of a way. ``first``: seconds of the turn that warmed up. ``ready``: seconds until then.

    peak_mib: the most memory its process had, or its tensors on a GPU, without the processes of data loaders.
    """

    name: str
    samples: int
    ready: float = 0.0
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Samples a second, by the median turn."""
        return self.samples / statistics.median(self.seconds)

    @property
    def per_sample(self) -> list[float]:
        """Seconds a sample, of each turn."""
        return [seconds / self.samples for seconds in self.seconds]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"samples_per_second": self.per_second}


def take_turns(ways: Sequence[Way], options: argparse.Namespace) -> dict[str, Timed]:
    """Time all ways in turn (A B C … A B C …), the first round left out; by name.

    Each is a fresh process that does nothing else, so that its peak memory is its own, and waits while others work. They get
    ready one after another, for some of them measure then what is fastest.
    """
    # Not this process's fork, which would hold this one's memory and threads; PyTorch alone is imported but once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    deadline = time.perf_counter() + 60 * options.minutes
    processes, ends, found = [], {}, {}
    try:
        for way in ways:
            ends[way.name], other = context.Pipe()
            process = context.Process(target=_compete, args=(other, way, options.device, options.threads))
            processes.append(process)
            started = time.perf_counter()
            process.start()
            other.close()
            found[way.name] = Timed(way.name, way.samples)
            _heard(ends[way.name], way.name)
            found[way.name].ready = time.perf_counter() - started
            _say(f"{way.name} is ready after {found[way.name].ready:.0f} s")
        _measure(ends, found, options.rounds, deadline)
        for name, end in ends.items():
            end.send(False)
            found[name].peak_mib, found[name].notes = _heard(end, name)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    return found


def _measure(ends: Mapping[str, Connection], found: Mapping[str, Timed], rounds: int, deadline: float) -> None:
    for number in range(rounds + 1):
        if number > _FEWEST_ROUNDS and time.perf_counter() > deadline:
            _say(f"the time is over after {number - 1} rounds")
            break
        started = time.perf_counter()
        for name, end in ends.items():
            end.send(True)
            seconds = _heard(end, name)
            _heard(end, name)  # it waits for its next turn
            if number:
                found[name].seconds.append(seconds)
            else:
                found[name].first = seconds
        what = f"round {number} of {rounds}" if number else "the round that warms up"
        _say(f"{what}: {time.perf_counter() - started:.1f} s")


def _compete(connection: Connection, way: Way, device: str, threads: int) -> None:
    logging.disable(logging.WARNING)
    # A loader's workers are to start as they do in any script.
    multiprocessing.set_start_method(None, force=True)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    turns = Turns(connection, device)
    try:
        way.work(turns, **way.arguments)
        connection.send((_peak_mib(device), turns.notes))
    except Exception as error:
        # One that is raised in a pickled form could itself fail to be unpickled.
        connection.send(_Failed("".join(traceback.format_exception(error))))


@dataclass(frozen=True)
class _Failed:
    text: str


def _heard(end: Connection, name: str) -> Any:
    try:
        message = end.recv()
    except EOFError:
        raise SystemExit(f"the process of '{name}' ended without a word.") from None
    if isinstance(message, _Failed):
        raise SystemExit(f"'{name}' failed:\n{message.text}")
    return message


def _peak_mib(device: str) -> float:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    if _PROC_STATUS.exists():
        # getrusage would count the parent's memory at the time of the start.
        line = next(line for line in _PROC_STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


# -- figures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
        """Of one round's time to another's in the same round."""
        return cls.of([a / b for a, b in zip(ours, theirs, strict=True)])

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Bar:
    """A figure, and the most that it should be."""

    text: str
    value: float
    most: float
    spread: Spread | None = None

    @classmethod
    def of(cls, text: str, spread: Spread, most: float) -> Bar:
        return cls(text, spread.middle, most, spread)

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


@dataclass(frozen=True)
class Line:
    """The straight line through points by least squares. ``residual``: the farthest point from it, as a share of its value."""

    slope: float
    intercept: float
    residual: float

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Line:
        slope, intercept = statistics.linear_regression(list(points), list(points.values()))
        off = max(abs(slope * x + intercept - y) / y for x, y in points.items())
        return cls(slope, intercept, off)


def print_facts(facts: Mapping[str, Any]) -> None:
    """The facts, one a line."""
    for name, value in facts.items():
        text = ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else value
        print(f"{name:<18} {text}", flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table below its title."""
    print(f"\n{title}\n")
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(map(str, row)) + " |")
    sys.stdout.flush()


def print_bars(bars: Sequence[Bar]) -> None:
    """Each bar with what was found; a bar that is not met is MISSED."""
    rows = [
        (bar.text, bar.spread or f"{bar.value:.3f}", f"{bar.most:.3f}", "met" if bar.met else "MISSED") for bar in bars
    ]
    print_table("Bars", ["what", "found, median (quartiles)", "at most", ""], rows)


def write_json(path: str | None, found: Mapping[str, Any]) -> None:
    """Write what was found, if a file was asked for."""
    if path:
        Path(path).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")

"""What the benchmarks that measure in one process share: their options, and the seconds of a call."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from _rounds import Clock


def parse(parser: argparse.ArgumentParser, *, rounds: int) -> argparse.Namespace:
    """The options of the parser and those of all: how many rounds, which threads and device, a file for what was found."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves PyTorch's own number")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE", help="write what was found there too")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("quartiles need at least 2 rounds.")
    return options


def seconds_of(call: Callable[[], object], device: str | torch.device, *, calls: int = 1) -> float:
    """Seconds of one call, the mean over ``calls`` in a row."""
    clock = Clock(device)
    started = clock.now()
    for _ in range(calls):
        call()
    return (clock.now() - started) / calls

"""How far long work without epochs is, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Each = TypeVar("Each")

_SAID_EVERY = 10.0  # seconds


class Progress:
    """A line every ten seconds. what: is counted, in words."""

    def __init__(self, say: Callable[[str], None], what: str = "entries") -> None:
        self.say, self.what, self.said = say, what, time.perf_counter()
        self.started = self.said

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if done and now - self.said >= _SAID_EVERY:
            self.said = now
            left = (now - self.started) / done * (total - done)
            self.say(f"            {done:,} of {total:,} {self.what}, {left:,.0f} s left")


@dataclass(frozen=True)
class Watched(Generic[Each]):
    """Things to go through, as often as they can be themselves, of which :class:`Progress` tells how many are done."""

    things: Iterable[Each]
    count: int
    say: Callable[[str], None]
    what: str = "batches"

    def __iter__(self) -> Iterator[Each]:
        progress = Progress(self.say, self.what)
        for done, thing in enumerate(self.things):
            progress(done, self.count)
            yield thing

"""How far long work is."""

from __future__ import annotations

import pytest

from limbeck import progress
from limbeck.progress import Watched


def test_nothing_is_said_of_what_is_soon_done() -> None:
    said: list[str] = []
    watched = Watched([1, 2, 3], 3, said.append)
    assert (list(watched), list(watched), said) == ([1, 2, 3], [1, 2, 3], [])


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 8))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    said: list[str] = []
    assert list(Watched("abcde", 5, said.append, "letters")) == list("abcde")
    # 8 seconds between any two looks: every second one is 10 after the line before.
    assert said == ["            1 of 5 letters, 64 s left", "            3 of 5 letters, 21 s left"]

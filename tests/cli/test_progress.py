"""The live line on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from limbeck.cli.output import Output
from limbeck.cli.progress import Progress
from limbeck.cli.settings import OutputOptions
from limbeck.cli.summary import duration
from limbeck.config import TrainSettings


def test_the_live_line_follows_the_loop_and_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from limbeck.distillation import run
    from limbeck.job import job_of

    output = Output(OutputOptions())
    screen = io.StringIO()
    output.err = Console(file=screen, force_terminal=True, width=100)
    settings = TrainSettings(model="convnet_tiny", epochs=2, runs_dir=tmp_path)
    with Progress(output) as progress:
        lines = []
        monkeypatch.setattr(progress, "on_epoch", lambda loop, metrics: lines.append(progress._line().plain))
        run(job_of(settings), callbacks=[progress], say=output.say, folder=False)
        assert progress.live is None
    assert lines[0].startswith("epoch 1/2  ━━━")
    assert "images/s" in lines[1]
    assert "loss " in lines[1]
    assert "data        digits" in screen.getvalue()


def test_durations() -> None:
    assert [duration(seconds) for seconds in (8.12, 200, 7500)] == ["8.1 s", "3:20 min", "2:05:00 h"]

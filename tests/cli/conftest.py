"""The command line, run in this process (quick) or as a user would (a process), and one small trained teacher."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from limbeck.cli import main

RECIPE = "teacher: runs/teacher\nstudent: convnet_tiny\nobjective: icd+kd\nepochs: 9\n"
ENVIRONMENT = {"COLUMNS": "100", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def limbeck(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``limbeck("list", "objectives")`` in this process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("LIMBECK_PLUGINS", "LIMBECK_DEBUG", "LIMBECK_DATA"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a small teacher and a recipe that uses it."""
    folder = tmp_path_factory.mktemp("work")
    words = ["train", "--model", "convnet_tiny", "--epochs", "3", "--name", "teacher", "--quiet"]
    assert main([*words, "--json", "--runs-dir", str(folder / "runs")]) == 0
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def work(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, as the current one."""
    monkeypatch.chdir(trained)
    return trained


def said_in_this_process(*words: str) -> Said:
    """For fixtures that many tests share, which have no ``limbeck``."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(list(words))
    return Said(code, out.getvalue(), err.getvalue())


def subprocess_of(*words: str, **options: object) -> subprocess.Popen[str]:
    """``limbeck`` as a process of its own."""
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]  # options are passed through
        [sys.executable, "-m", "limbeck", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        **options,
    )


def finish(process: subprocess.Popen[str]) -> Said:
    """What it said until its end."""
    out, err = process.communicate(timeout=120)
    return Said(process.returncode, out, err)


def no_traceback(said: Said) -> Sequence[str]:
    """The lines of an error, after a check that it is one block for users."""
    assert said.err.startswith("error: "), said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    return said.err.splitlines()

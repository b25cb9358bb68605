"""What a user's mistake looks like: one block, the nearest spelling, exit code 2, no traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from limbeck.cli.guard import guarded
from limbeck.errors import LimbeckError, NonFiniteError

from .conftest import Run, finish, no_traceback, subprocess_of

_MISTAKES = {
    "distil": ["unknown verb 'distil'", "limbeck distill"],
    "--verison": ["unknown option '--verison'"],
    "distill --epohcs 3": ["unknown option '--epohcs'", "did you mean --epochs?", "limbeck distill --help"],
    "distill --epochs=3 --jsn": ["unknown option '--jsn'", "did you mean --json?"],
    "distill cifar100": ["'cifar100' is not expected there"],
    "distill --epochs": ["--epochs needs a value"],
    "distill --teacher --student resnet8x4": ["--teacher needs a value"],
    "distill --epochs 0": ["command line: epochs", "greater than or equal to 1", "'0'"],
    "distill --epochs many": ["command line: epochs", "valid integer", "'many'"],
    "distill --optimizer sdg": ["command line: optimizer", "'sgd' or 'adamw'", "'sdg'"],
    "distill --taps layer2": ["--taps takes STUDENT=TEACHER", "'layer2'"],
    "distill --config nowhere.yaml": ["there is no recipe nowhere.yaml"],
    "distill": ["teacher is not given", "--teacher"],
    "train": ["model is not given"],
    "distill --teacher a --student b --objective icdd": ["unknown objective 'icdd'", "did you mean 'icd'?"],
    "distill --teacher a --student b --data digts": ["unknown data set 'digts'", "did you mean 'digits'?"],
    "train --model convnet_tny --quiet": ["convnet_tny", "did you mean 'convnet_tiny'?"],
    "train --model convnet_tiny --device tpu": ["device", "'tpu'", "cpu"],
    "train --model convnet_tiny --plugins nowhere.py": ["plugins", "nowhere.py"],
    "list": ["name what to list", "objectives"],
    "list modls": ["what", "'objectives'", "'modls'"],
    "list objectives icx": ["no objectives match 'icx'", "did you mean 'icd'?"],
    "explain": ["limbeck explain icd"],
    "explain icdd": ["unknown objective or preset 'icdd'", "did you mean 'icd'?"],
    "explain kd(temprature=2)": ["unknown argument of kd 'temprature'", "did you mean 'temperature'?"],
    "inspect": ["name a network"],
    "inspect resnet8x5": ["resnet8x5", "did you mean"],
    "evaluate": ["name a network"],
    "evaluate runs/nothing": ["there is no run folder or weights file runs/nothing"],
    "report nowhere": ["there is no run to report on", "nowhere"],
    "evaluate convnet_tiny": ["names no weights"],
    "evaluate convnet_tiny@a.safetensors --device gpu": ["device", "'gpu'"],
    "export": ["name a network"],
    "completion": ["bash, zsh or fish"],
    "completion ksh": ["'bash', 'zsh' or 'fish'", "'ksh'"],
}


@pytest.mark.parametrize("words", _MISTAKES)
def test_a_mistake_is_one_sentence(limbeck: Run, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = limbeck(*words.split())
    assert said.code == 2
    text = " ".join(no_traceback(said))
    for part in _MISTAKES[words]:
        assert part in text
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_unknown_key_in_a_recipe(limbeck: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("teacher: a\nepocs: 3\n")
    said = limbeck("distill", "--config", str(tmp_path / "r.yaml"))
    assert said.code == 2
    assert "unknown setting 'epocs'; did you mean 'epochs'?" in no_traceback(said)[0]


def test_unknown_option_in_a_process_of_its_own() -> None:
    said = finish(subprocess_of("train", "--modle", "resnet8x4"))
    assert said.code == 2
    assert "did you mean --model?" in no_traceback(said)[0]


# -- the guard itself --------------------------------------------------------------------------------------------------


def _guarded(error: BaseException, capsys: pytest.CaptureFixture[str], *, verbose: bool = False) -> tuple[int, str]:
    def action() -> int:
        raise error

    code = guarded(action, verbose=verbose)
    return code, capsys.readouterr().err


def test_each_kind_of_error_has_its_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_DEBUG", raising=False)
    assert _guarded(LimbeckError("first\nsecond"), capsys) == (1, "error: first\n       second\n")
    assert _guarded(NonFiniteError("kd became NaN"), capsys)[0] == 1
    assert _guarded(KeyboardInterrupt(), capsys) == (130, "error: stopped.\n")
    assert _guarded(SystemExit(0), capsys) == (0, "")


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/runs/x/last.pt"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ):
        code, text = _guarded(error, capsys)
        assert code == 1
        assert "is full" in text
        assert "Traceback" not in text
    code, text = _guarded(PermissionError(errno.EACCES, "Permission denied", "/root/x"), capsys)
    assert (code, text) == (1, "error: /root/x: Permission denied. --verbose shows where it happened.\n")


def test_a_fault_of_ours_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = _guarded(ZeroDivisionError("division by zero"), capsys)
    assert code == 1
    assert "Traceback" in text
    assert "error: ZeroDivisionError: division by zero" in text
    assert "limbeck doctor" in text


def test_debug_shows_the_traceback_of_any_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" in _guarded(LimbeckError("no"), capsys, verbose=True)[1]
    monkeypatch.setenv("LIMBECK_DEBUG", "1")
    assert "Traceback" in _guarded(LimbeckError("no"), capsys)[1]


def test_a_closed_pipe_is_no_error() -> None:
    with subprocess_of("distill", "--help") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141

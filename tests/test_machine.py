"""What a run tells of the machine it ran on and of how it was started."""

from __future__ import annotations

import shlex
import sys

import pytest

from limbeck.machine import command_line


@pytest.mark.parametrize(
    ("program", "told"),
    [("/usr/bin/limbeck", "limbeck"), ("/lib/python3/site-packages/limbeck/__main__.py", "python -m limbeck")],
)
def test_the_command_can_be_given_again(program: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "distill", "--objective", "ce + icd()", "--teacher", "mean(a,b)"])
    assert command_line() == f"{told} distill --objective 'ce + icd()' --teacher 'mean(a,b)'"


@pytest.mark.parametrize(
    "argument",
    [
        "rank=4, targets=['q_proj', 'v_proj']",
        'arithmetic(operations="+")',
        """both 'of' "them" for $HOME""",
        "server:http://localhost:8000/v1?model=NAME&logprobs=5",
        "[a]",
        "it's!",
        "",
    ],
)
def test_a_shell_reads_each_argument_of_the_command_as_it_was_given(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/limbeck", "train", argument])
    assert shlex.split(command_line()) == ["limbeck", "train", argument]

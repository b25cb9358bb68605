"""Help is quick, complete and reachable for every verb."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from limbeck import __version__
from limbeck.cli.arguments import arguments_of, settings_of
from limbeck.cli.groups import heading
from limbeck.cli.verbs import VERBS, Verb, load
from limbeck.config import CompareSettings, DistillSettings, TrainSettings

from .conftest import Run

_ALL_VERBS = list(VERBS.values())


def test_the_overview_names_every_verb(limbeck: Run) -> None:
    for words in ((), ("--help",), ("-h",)):
        said = limbeck(*words)
        assert said.code == 0
        assert "limbeck distill --data cifar100 --teacher" in said.out
        for verb in _ALL_VERBS:
            assert f"  {verb.name.ljust(12)}{verb.help}" in said.out
        assert max(map(len, said.out.splitlines())) <= 120


def test_version(limbeck: Run) -> None:
    assert limbeck("--version").out == f"limbeck {__version__}\n"


@pytest.mark.parametrize("verb", _ALL_VERBS, ids=lambda verb: verb.name)
def test_help_of_a_verb_names_its_settings(limbeck: Run, verb: Verb) -> None:
    said = limbeck(verb.name, "--help")
    assert said.code == 0
    assert verb.help in said.out
    for name in settings_of(verb).model_fields:
        if name in verb.positional:
            assert name.upper() in said.out
        elif name not in ("stages", "members", "as_json"):
            assert f"--{name.replace('_', '-')}" in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert all(command.splitlines()[0].strip() in said.out for _, command in verb.examples)


@pytest.mark.parametrize("verb", _ALL_VERBS, ids=lambda verb: verb.name)
def test_the_handler_exists(verb: Verb) -> None:
    assert callable(load(verb.handler))
    assert arguments_of(verb, choices=True)


def test_every_setting_of_a_run_has_a_heading() -> None:
    fields = {*TrainSettings.model_fields, *DistillSettings.model_fields, *CompareSettings.model_fields} - {
        "stages",
        "members",
    }
    assert [name for name in fields if heading(name) is None] == []  # add it to limbeck/cli/groups.py


def test_help_needs_no_torch_and_is_quick() -> None:
    code = (
        "import sys; from limbeck.cli import main; "
        "[main(words.split()) for words in ('--help', 'distill --help', 'list --help', 'doctor --help')]; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'timm', 'accelerate')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
    # Against the interpreter's own start on this machine, at its best of three, as others may be at work here too.
    assert _best("-m", "limbeck", "--help") - _best("-c", "pass") < 0.5


def _best(*words: str) -> float:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_options_and_choices(limbeck: Run, shell: str) -> None:
    said = limbeck("completion", shell)
    assert said.code == 0
    for word in ("distill", "explain", "--teacher", "--label-smoothing", "multistep", "--json"):
        assert word in said.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=said.out, text=True).returncode == 0


def test_completion_in_bash_completes(limbeck: Run) -> None:
    script = limbeck("completion", "bash").out
    ask = 'COMP_WORDS=(limbeck distill --obj); COMP_CWORD=2; _tyro_limbeck; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash"], input=f"{script}\n{ask}\n", text=True, stdout=subprocess.PIPE)
    assert done.stdout.split() == ["--objective"]

"""Every published cell has a command that limbeck understands, or a reason why not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from protocol import PROTOCOL

from limbeck.cli.arguments import parse, settings_of
from limbeck.cli.verbs import VERBS
from limbeck.config import DistillSettings, RunSettings, TrainSettings
from limbeck.data.sources import list_sources
from limbeck.data.views import parse_view_sets
from limbeck.models.zoo import zoo_models
from limbeck.objectives import parse_objective
from limbeck.published.plans import _plans, network_name, plan
from limbeck.published.show import command_lines
from limbeck.published.tables import ALONE, TEACHER, Cell, find_table, tables
from limbeck.runs import run_name

BENCHMARK = [t.id for t in tables() if t.id.startswith(("repdistiller_", "distillers_"))]


def cells(*names: str) -> Iterator[Cell]:
    for table in tables():
        if table.id in names or not names:
            yield from table.cells()


def cell(table: str, method: str, student: str) -> Cell:
    return next(c for c in find_table(table).cells() if c.method == method and c.column.student == student)


def test_there_is_a_command_or_a_reason() -> None:
    for one in cells():
        run = plan(one)
        assert bool(run.commands) == (run.status == "command") == (run.reason is None), one
        assert (run.objective is not None) == bool(run.commands)


def test_every_table_with_a_number_is_planned_and_every_plan_is_of_a_table() -> None:
    planned = [name for group in _plans().groups for name in group.tables]
    assert sorted(planned) == sorted(table.id for table in tables() if table.numbers)


def test_no_method_of_a_plan_is_without_a_row() -> None:
    methods = {one.method for one in cells()}
    assert set(_plans().methods) <= methods
    assert all(set(group.methods) <= methods for group in _plans().groups)


@cache
def read(line: str) -> Any:
    """The settings of a command: as the command line reads them, but quick."""
    limbeck, verb, *words = shlex.split(line)
    assert limbeck == "limbeck"
    values: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            values[name] = []
        elif values:
            values[name].append(word)
    lists = {"milestones", "parts"}
    plain = {k: v if k in lists else (v[0] if v else not k.startswith("no_")) for k, v in values.items()}
    return settings_of(VERBS[verb]).make(plain)


def test_the_command_line_reads_commands_as_these_tests_do() -> None:
    # One of each form: which options it has, and none of the rest.
    forms = {}
    for line in {command.line for one in cells() for command in plan(one).commands}:
        words = shlex.split(line)
        forms[words[1], *(word for word in words if word.startswith("--"))] = line
    assert len(forms) <= 8
    for line in forms.values():
        words = shlex.split(line)
        settings, _ = parse(VERBS[words[1]], words[2:])
        exclude = {"models", "model"} if words[1] == "evaluate" else set()
        assert settings.model_dump(exclude=exclude) == read(line).model_dump(exclude=exclude)


def test_commands_are_understood() -> None:
    lines = {command.line for one in cells() for command in plan(one).commands}
    assert len(lines) > 200
    every = [read(line) for line in lines]
    trained = {run.model for run in every if isinstance(run, TrainSettings)}
    taught = [run for run in every if isinstance(run, DistillSettings)]
    probed = [run for run in every if not isinstance(run, RunSettings)]
    assert trained | {run.student for run in taught} <= set(zoo_models())
    assert all(parse_objective(text) for text in {run.objective for run in taught})
    assert all(parse_view_sets(text) for text in {run.augment for run in taught})
    assert {run.transfer for run in probed} <= {entry.name for entry in list_sources()}
    assert {run.transfer_protocol for run in probed} == {"authors"}


@pytest.mark.parametrize("table", BENCHMARK)
def test_the_benchmarks_commands_are_at_its_protocol(table: str) -> None:
    for one in cells(table):
        for command in plan(one).commands:
            settings = read(command.line)
            if not isinstance(settings, RunSettings):
                continue
            assert {name: getattr(settings, name) for name in PROTOCOL} == PROTOCOL
            trained = settings.model if isinstance(settings, TrainSettings) else settings.student
            slow = trained in ("mobilenetv2_half", "shufflenetv1", "shufflenetv2")
            assert settings.lr == (0.01 if slow else 0.05)


def test_the_student_learns_from_the_run_of_the_command_before() -> None:
    for one in cells():
        commands = [shlex.split(command.line) for command in plan(one).commands]
        for before, words in pairwise(commands):
            if words[1] == "distill":
                name = before[before.index("--name") + 1]
                assert words[words.index("--teacher") + 1] == f"runs/{name}"


def test_a_probe_is_of_the_run_of_the_command_before() -> None:
    for one in cells("distillers_v3_transfer"):
        *_, trained, probe = [command.line for command in plan(one).commands]
        settings = read(trained)
        student = settings.model if isinstance(settings, TrainSettings) else settings.student
        method = "alone" if isinstance(settings, TrainSettings) else settings.objective
        assert (
            shlex.split(probe)[2] == f"runs/{settings.name or run_name(settings.data, student, method, settings.seed)}"
        )


@pytest.mark.parametrize(
    ("table", "method", "student", "objective"),
    [
        ("repdistiller_cifar100_same", "KD", "resnet8x4", "kd"),
        ("repdistiller_cifar100_same", "FT", "resnet8x4", "ft"),
        ("repdistiller_cifar100_same", "FT", "vgg8", "ce + 200*ft()"),
        ("distillers_v1_cifar100_same", "ICD+KD", "resnet8x4", "icd_paper+kd"),
        ("distillers_v3_cifar100_cross", "DCD", "ShuffleNetV1", "icd_paper"),
        ("distillers_v2_cifar100_same", "RRD", "vgg8", "rrd_2024"),
        ("mdistiller_dkd_cifar100_same", "DKD", "ResNet20", "ce + dkd(beta=2)"),
        ("mdistiller_dkd_cifar100_cross", "DKD", "ShuffleNet-V2", "ce + dkd(beta=8)"),
        ("simkd_cifar100", "KD", "resnet8x4", "ce + kd(temperature=4)"),
        ("simkd_cifar100", "SimKD (f=8)", "vgg8", "simkd(factor=8)"),
        ("itrd_cifar100_same", "ReviewKD", "resnet20", "ce + 0.6*reviewkd()"),
    ],
)
def test_methods_are_the_papers(table: str, method: str, student: str, objective: str) -> None:
    assert plan(cell(table, method, student)).objective == objective


@pytest.mark.parametrize(
    ("table", "method", "student", "status", "reason"),
    [
        ("lskd_cifar100_same", "CTKD", "VGG8", "not in limbeck", "CTKD is not in limbeck"),
        ("lskd_cifar100_cross", "DKD", "Wrn_16_2", "not yet", "weight beta for this pair was not recovered"),
        ("lskd_cifar100_cross", "MLKD", "MN-V2", "not yet", "learning rate for this student was not recovered"),
        ("simkd_cifar100", "KD", "ShuffleNetV2x1.5", "not in limbeck", "the network ShuffleNetV2x1.5"),
        ("dist_imagenet_baseline", "DIST", "ResNet-18", "not yet", "ImageNet"),
    ],
)
def test_what_cannot_be_run_says_why(table: str, method: str, student: str, status: str, reason: str) -> None:
    run = plan(cell(table, method, student))
    assert run.status == status
    assert reason in (run.reason or "")
    assert run.commands == ()


def test_teacher_and_student_alone_are_trained_alone() -> None:
    teacher, alone = (plan(cell("simkd_cifar100", method, "resnet8x4")) for method in (TEACHER, ALONE))
    assert (teacher.teacher, teacher.student, teacher.objective) == (None, "resnet32x4", "ce")
    assert (alone.teacher, alone.student, alone.objective) == (None, "resnet8x4", "ce")
    assert [len(run.commands) for run in (teacher, alone)] == [1, 1]


def test_a_teacher_that_is_here_can_be_trained_where_the_student_is_not() -> None:
    assert plan(cell("simkd_cifar100", TEACHER, "ShuffleNetV2x1.5")).status == "command"


def test_networks_are_those_of_the_zoo() -> None:
    assert set(_plans().networks) <= set(zoo_models())
    assert {network_name(name) for name in ("wrn-40-2", "WRN-40-2", "Wrn_40_2", "wrn_40_2")} == {"wrn_40_2"}
    assert network_name("ShuffleNetV2x1.5") is None


def test_command_lines_are_one_command() -> None:
    line = plan(cell("mdistiller_dkd_cifar100_same", "DKD", "ResNet20")).commands[-1].line
    shown = command_lines(line, 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(line)

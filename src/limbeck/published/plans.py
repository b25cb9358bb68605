"""How a published cell is run here: our names for networks and method, the protocol, the commands. Imports no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from limbeck.config import DistillSettings
from limbeck.published.tables import ALONE, TEACHER, Cell, Column, read_data

Status = Literal["command", "not yet", "not in limbeck"]
Certainty = Literal["stated", "inferred", "not recovered"]


@dataclass(frozen=True)
class Command:
    """A line for the shell. what: a word or two on it."""

    what: str
    line: str


@dataclass(frozen=True)
class Plan:
    """How a cell is run.

    reason: why there is no command, None where there is one. data, teacher, student, objective: as in settings; the teacher is
    None where a network is trained alone. settings: what the protocol fixes. protocol: the same in words. certainty: how surely
    the protocol and the method's settings are the authors' own. variants: limbeck's own forms of the method, which are not the
    paper's. probe: the data that features are probed on, where the cell is of such a probe.
    """

    status: Status
    reason: str | None = None
    data: str | None = None
    teacher: str | None = None
    student: str | None = None
    objective: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    certainty: Certainty = "stated"
    variants: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    probe: str | None = None
    commands: tuple[Command, ...] = ()


def plan(cell: Cell) -> Plan:
    """How a cell is run with limbeck, or why it cannot be."""
    group = _group_of(cell.table.id)
    if group is None or group.reason is not None or group.data is None:
        return Plan("not yet", group.reason if group is not None else "the table was not recovered")
    method = _method(cell, group)
    if method.missing:
        return Plan("not in limbeck", method.missing)
    names = {who: _needed(cell, who) for who in ("teacher", "student")}
    networks = {who: network_name(name) for who, name in names.items() if name is not None}
    absent = [names[who] for who, network in networks.items() if network is None]
    if absent:
        return Plan("not in limbeck", f"the network {absent[0]} is not in limbeck")
    return _runnable(cell, group, method, networks)


def network_name(printed: str) -> str | None:
    """Our name for a network of the CIFAR-100 benchmark that is written as authors write it; None where there is none."""
    return _spellings().get(printed.casefold())


def arxiv_of(table: str) -> tuple[str, ...]:
    """The numbers of the papers that a table belongs to, where its source does not name them."""
    group = _group_of(table)
    return () if group is None else tuple(group.arxiv)


def other_names(method: str) -> tuple[str, ...]:
    """What else a method of the tables may be called."""
    found = _plans().methods.get(method)
    return () if found is None else tuple(found.also)


def _needed(cell: Cell, who: str) -> str | None:
    """The network that a cell needs in this place, by its printed name."""
    is_idle = (cell.method == TEACHER and who == "student") or (cell.method == ALONE and who == "teacher")
    name: str | None = getattr(cell.column, who)
    return None if is_idle else name


def _runnable(cell: Cell, group: _Group, method: _Method, networks: dict[str, str | None]) -> Plan:
    teacher, student = networks.get("teacher"), networks.get("student")
    protocol = _plans().protocols[method.protocol or group.protocol]
    settings = protocol.settings_of(student, _plans().slow)
    objective = method.objective_of(teacher, student)
    if objective is None:
        return Plan("not yet", method.unknown)
    if settings is None:
        return Plan("not yet", "its learning rate for this student was not recovered")
    assert group.data is not None
    probe = group.probes.get(cell.column.transfer or "")
    certainties = (group.certainty, method.certainty)
    order: tuple[Certainty, ...] = ("not recovered", "inferred", "stated")
    return Plan(
        status="command",
        data=group.data,
        teacher=None if cell.method == TEACHER else teacher,
        student=teacher if cell.method == TEACHER else student,
        objective=objective,
        settings=settings,
        protocol=protocol.what,
        certainty=next(certainty for certainty in order if certainty in certainties),
        variants=tuple(method.variants),
        remarks=tuple(remark for remark in (method.remark, group.remark, _misprint(cell.column)) if remark),
        probe=probe,
        commands=tuple(_commands(group.data, teacher, student, objective, settings, probe)),
    )


def _misprint(column: Column) -> str | None:
    if column.printed_student is None:
        return None
    return f"The column is printed as {column.printed_student}; its figures are those of {column.student}."


# Commands


def _commands(
    data: str, teacher: str | None, student: str | None, objective: str, settings: dict[str, Any], probe: str | None
) -> list[Command]:
    lines, trained = [], ""
    if teacher is not None:
        # A teacher has the benchmark's protocol, whatever its students have.
        of_teacher = _plans().protocols[_BENCHMARK].settings
        trained = f"{data}-{teacher}"
        words = ["train", "--data", data, "--model", teacher, *options(of_teacher), "--seed", "0", "--name", trained]
        lines.append(Command("the teacher, once", _line(words)))
    if student is not None:
        end = [*options(settings), "--seed", "0"]
        alone = ["train", "--data", data, "--model", student, *end]
        taught = ["distill", "--data", data, "--teacher", f"runs/{trained}", "--student", student]
        words = alone if teacher is None else [*taught, "--objective", objective, *end]
        trained = f"{data}-{student}-{'alone' if teacher is None else objective}-seed0"
        lines.append(Command("the student; for other seeds change --seed", _line(words)))
    if probe is not None:
        words = ["evaluate", f"runs/{trained}", "--parts", "transfer", "--transfer", probe]
        # Where 'limbeck reproduce' finds it again.
        words += ["--transfer-protocol", "authors", "--output", f"runs/{trained}/evaluation.json"]
        lines.append(Command("the probe of its features", _line(words)))
    return lines


def options(settings: dict[str, Any]) -> list[str]:
    """The words that give these settings to ``limbeck train`` or ``distill``; flags only where they are not the default."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{'' if value else 'no-'}{flag}"] * (value != DistillSettings.model_fields[name].default)
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def _line(words: list[str]) -> str:
    return shlex.join(["limbeck", *words])


# The file

_BENCHMARK = "crd"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Method(_Strict):
    """What a method's name means: an objective, or one for some pairs or students; or why there is none."""

    objective: str | None = None
    by_pair: dict[str, str] = {}
    by_student: dict[str, str] = {}
    unknown: str | None = None
    missing: str | None = None
    protocol: str | None = None
    certainty: Certainty = "stated"
    variants: list[str] = []
    also: list[str] = []
    remark: str | None = None

    def objective_of(self, teacher: str | None, student: str | None) -> str | None:
        """The objective for a pair; None where it is not known."""
        return self.by_pair.get(f"{teacher}/{student}") or self.by_student.get(student or "") or self.objective


class _Protocol(_Strict):
    what: str
    slow_lr: float | None
    settings: dict[str, Any]

    def settings_of(self, student: str | None, slow: list[str]) -> dict[str, Any] | None:
        """The settings for a student; None where its learning rate is not known."""
        if student not in slow:
            return self.settings
        return None if self.slow_lr is None else {**self.settings, "lr": self.slow_lr}


class _Group(_Strict):
    tables: list[str]
    arxiv: list[str] = []
    reason: str | None = None
    data: str | None = None
    protocol: str = _BENCHMARK
    certainty: Certainty = "stated"
    probes: dict[str, str] = {}
    remark: str | None = None
    methods: dict[str, _Method] = {}


class _Plans(_Strict):
    networks: dict[str, list[str]]
    slow: list[str]
    protocols: dict[str, _Protocol]
    methods: dict[str, _Method]
    groups: list[_Group]


_UNTAUGHT = _Method(objective="ce")


def _method(cell: Cell, group: _Group) -> _Method:
    if cell.method in (TEACHER, ALONE):
        return _UNTAUGHT
    return group.methods.get(cell.method) or _plans().methods[cell.method]


@cache
def _plans() -> _Plans:
    return _Plans.model_validate(yaml.safe_load(read_data("plans.yaml")))


@cache
def _spellings() -> dict[str, str]:
    networks = _plans().networks
    return {spelling.casefold(): name for name, others in networks.items() for spelling in (name, *others)}


@cache
def _groups() -> dict[str, _Group]:
    return {table: group for group in _plans().groups for table in group.tables}


def _group_of(table: str) -> _Group | None:
    return _groups().get(table)

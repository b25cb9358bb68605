"""A teacher of several networks: from its text to networks that were opened and checked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from limbeck.errors import SettingError, SignalError, unknown_name
from limbeck.expression import parse_call, split_at_commas
from limbeck.networks import Network
from limbeck.taps import Tapped
from limbeck.teachers.rules import RULES, Rule

_CALL = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_ARGUMENT = re.compile(r"\w+\s*=[^=]")


@dataclass(frozen=True)
class Combination:
    """Teachers and the rule that makes one of them: ``Combination(Mean(weights=[2, 1]), (first, second))``.

    members: each as a teacher alone is given, by text or as a network.
    """

    rule: Rule
    members: tuple[str | nn.Module, ...]

    def __str__(self) -> str:
        names = [member if isinstance(member, str) else type(member).__name__ for member in self.members]
        arguments = str(self.rule)
        return f"{self.rule.name}({', '.join([*names, *([arguments] if arguments else [])])})"


def teacher_name(teacher: object) -> str:
    """What a teacher is called that is not given by name: its combination's text, or its class."""
    return str(teacher) if isinstance(teacher, Combination) else type(teacher).__name__


def parse_combination(text: str) -> Combination | None:
    """The combination that a teacher's text tells of, as in ``mean(runs/one, runs/two, weights=[2, 1])``; None for one network.

    Raises:
        SettingError: an argument that the rule has not, or that does not fit.
    """
    found = _CALL.fullmatch(text.strip())
    if found is None or found[1] not in RULES:
        return None
    parts = split_at_commas(found[2], "teacher")
    members = tuple(part for part in parts if not _ARGUMENT.match(part))
    for member in members:
        if parse_combination(member) is not None:
            raise SettingError(f"teacher: {found[1]} takes networks, and {member} is a combination itself.")
    return Combination(_made(found[1], [part for part in parts if _ARGUMENT.match(part)]), members)


def rule_of(text: str) -> Rule:
    """The rule that a text names without its teachers, as in ``routed(pacing=0.5)`` or ``mean``.

    Raises:
        SettingError: there is no such rule, or an argument does not fit.
    """
    found = _CALL.fullmatch(text.strip())
    name, inside = (found[1], found[2]) if found else (text.strip(), "")
    if name not in RULES:
        raise SettingError(unknown_name("rule for several teachers", name, RULES))
    return _made(name, split_at_commas(inside, "teacher") if inside.strip() else [])


def _made(name: str, arguments: Sequence[str]) -> Rule:
    rule = RULES[name]
    given = parse_call(f"{name}({', '.join(arguments)})", "teacher").arguments
    accepted = list(inspect.signature(rule).parameters)
    for argument in given:
        if argument not in accepted:
            raise SettingError(f"teacher: {unknown_name(f'argument of {name}', argument, accepted)}")
    return rule(**given)


def open_teacher(
    teacher: str | nn.Module | Combination, open_one: Callable[[str | nn.Module, bool], Network]
) -> Network:
    """A teacher of one network or several. ``open_one`` opens a network; it is told whether that is the principal one.

    Raises:
        SettingError, WeightsError: of any of them; too few, too many or an order that the rule cannot take.
        SignalError: networks that tell different numbers of classes apart.
    """
    combination = parse_combination(teacher) if isinstance(teacher, str) else teacher
    if not isinstance(combination, Combination):
        assert not isinstance(teacher, Combination)
        return open_one(teacher, True)
    rule, count = combination.rule, len(combination.members)
    rule.check([0] * count)  # before anything is opened
    opened = [open_one(member, number == rule.principal % count) for number, member in enumerate(combination.members)]
    rule.check([network.parameters for network in opened])
    principal, *others = rule.principal_first(opened)
    made = [replace(principal, tapped=Tapped(module).eval()) for module in rule.others(principal.tapped.network)]
    # Without the files of the weights, as a single teacher is called.
    name = str(Combination(rule, tuple(network.name for network in opened)))
    return replace(principal, name=name, beside=(*others, *made), rule=rule)


def check_same_classes(counts: dict[str, int]) -> None:
    """Raise SignalError unless all teachers, by their names, tell as many classes apart."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SignalError(f"teachers must tell the same classes apart, and these have different numbers: {listed}.")

"""Which colour, dashes and marker each method has: one method looks the same on the whole page."""

from __future__ import annotations

from collections.abc import Iterable

from limbeck.evaluate.record import Evaluation
from limbeck.report.plates import MARKERS

_SETTINGS = " · "  # what stands between a method's name and the settings that set it apart from a namesake


def method_numbers(labels: Iterable[str], evaluations: Iterable[Evaluation]) -> dict[str, int]:
    """A number from 1 on for each method, by its label; 0 is the teacher's. Those that evaluations alone tell of come last."""
    told = (network.method for each in evaluations for network in each.networks.values() if network.role == "student")
    found = {label: number for number, label in enumerate(dict.fromkeys(labels), start=1)}
    for label in list(found):
        # An evaluation knows the name alone: the first of that name stands for it.
        found.setdefault(label.split(_SETTINGS)[0], found[label])
    for method in dict.fromkeys(told):
        if method is not None and method not in found:
            found[method] = 1 + max(found.values(), default=0)
    return found


def network_numbers(evaluation: Evaluation, methods: dict[str, int]) -> dict[str, int]:
    """The number of each network of an evaluation: its method's, 0 for the teacher; none twice.

    Several of one method, as those of several seeds, have one colour, and dashes and markers of their own. Those of no known
    method come after all methods.
    """
    found = {evaluation.teacher: 0} if evaluation.teacher is not None else {}
    taken = {0}
    for who in evaluation.students:
        method = evaluation.networks[who].method
        number = methods.get(method or "") or 1 + max([*methods.values(), *taken])
        while number in taken:
            number += len(MARKERS)
        found[who] = number
        taken.add(number)
    return found

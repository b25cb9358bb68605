"""What networks cost, by the evaluations that measured it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limbeck.report.rows import MethodRow

if TYPE_CHECKING:
    from limbeck.evaluate.cost import Cost
    from limbeck.evaluate.record import Evaluation


@dataclass(frozen=True)
class Price:
    """What a student costs beside its teacher: the teacher's figure over the student's, None where it was not measured.

    time: of a forward pass of ``batch`` images on ``device``.
    """

    macs: float | None
    time: float | None
    batch: int | None
    device: str


def price(row: MethodRow, evaluations: Iterable[Evaluation]) -> Price | None:
    """Of the first evaluation that measured this row's student and its teacher, which are known by data and parameters.

    Of several students of that size it is the one that was taught by this row's method, where that was measured.
    """
    if row.parameters_ratio is None:
        return None
    for evaluation in evaluations:
        if evaluation.data == row.data and evaluation.cost is not None:
            student = _measured(evaluation, "student", row.parameters, row.label)
            teacher = _measured(evaluation, "teacher", round(row.parameters * row.parameters_ratio), None)
            if student is not None and teacher is not None:
                return price_of(student, teacher, evaluation.cost.device)
    return None


def price_of(student: Cost, teacher: Cost, device: str) -> Price:
    """The time is that of the largest batch both were timed with, where what is called around the network weighs least."""
    macs = teacher.macs / student.macs if student.macs and teacher.macs else None
    times = {timed.batch: timed.median_ms for timed in student.latency}
    both = {timed.batch: timed.median_ms for timed in teacher.latency if timed.batch in times}
    batch = max(both, default=None)
    return Price(macs, None if batch is None else both[batch] / times[batch], batch, device)


def macs_by_parameters(data: str, evaluations: Iterable[Evaluation]) -> dict[int, int]:
    """Multiply-accumulates of the networks on a data set, by parameters; without those on which evaluations differ."""
    found: dict[int, set[int]] = {}
    for evaluation in evaluations:
        if evaluation.data == data and evaluation.cost is not None:
            for who, cost in evaluation.cost.networks.items():
                if cost.macs:
                    found.setdefault(evaluation.networks[who].parameters, set()).add(cost.macs)
    return {parameters: next(iter(macs)) for parameters, macs in found.items() if len(macs) == 1}


def share(ratio: float) -> str:
    """One over a ratio: as a fraction where it is small, else as percent.

    >>> share(6.2), share(2.5), share(0.8)
    ('1/6', '40 %', '125 %')
    """
    return f"1/{ratio:.0f}" if ratio >= 5 else f"{100 / ratio:.0f} %"


def cost_words(price: Price | None, parameters_ratio: float | None) -> str:
    """What a student costs of its teacher, in words: operations and time where they were measured, else parameters."""
    parts: list[str] = []
    if price is not None:
        parts = [
            f"{share(ratio)} of its {what}"
            for ratio, what in ((price.macs, "multiply-accumulates"), (price.time, "time"))
            if ratio is not None
        ]
    if not parts and parameters_ratio is not None:
        parts = [f"{share(parameters_ratio)} of its parameters"]
    return " and ".join(parts)


def _measured(evaluation: Evaluation, role: str, parameters: int, method: str | None) -> Cost | None:
    assert evaluation.cost is not None
    alike = [
        who
        for who, network in evaluation.networks.items()
        if network.role == role and network.parameters == parameters and who in evaluation.cost.networks
    ]
    own = [who for who in alike if evaluation.networks[who].method == method]
    return next((evaluation.cost.networks[who] for who in own or alike), None)

"""Probes of features on other data, as evaluations measured them, and whose features they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.evaluate.record import Entry, Evaluation
from limbeck.evaluate.transfer import AUTHORS_EPOCHS, Transfer
from limbeck.published.plans import Plan
from limbeck.report.read import Run

_ALONE = "student alone"
# Another device may tell a few images otherwise; where the name is the same too, it is the same network.
_SAME, _NEAR = 1e-6, 5e-3


@dataclass(frozen=True)
class Probe:
    """One network's probe by the authors' protocol.

    path: of the evaluation. accuracy: in [0, 1], None where that protocol was not asked for. images: how many it was tested on.
    differences: from the authors' protocol, empty where there is none.
    """

    path: Path
    who: str
    entry: Entry
    accuracy: float | None
    images: int
    differences: tuple[str, ...]

    @property
    def is_student(self) -> bool:
        """Whether it is a student's."""
        return self.entry.role == "student"

    @property
    def objective(self) -> str:
        """What the network was taught with, as an expression, or nothing where that is not told."""
        return "ce" if self.entry.method == _ALONE else self.entry.method or ""


def probes(evaluations: Mapping[Path, Evaluation], plan: Plan) -> Iterator[Probe]:
    """The probes on a plan's other data, of networks that were evaluated on its own test split."""
    for path, evaluation in evaluations.items():
        if (evaluation.data, evaluation.split, evaluation.transfer_data) == (plan.data, "test", plan.probe):
            for who, transfer in (evaluation.transfer or {}).items():
                yield _probe(path, who, evaluation.networks[who], transfer)


def _probe(path: Path, who: str, entry: Entry, transfer: Transfer) -> Probe:
    authors = transfer.authors
    if authors is None:
        return Probe(path, who, entry, None, 0, ("a frozen network, not the authors' protocol",))
    right = authors.epochs == AUTHORS_EPOCHS
    differing = () if right else (f"{authors.epochs} epochs of the probe, not {AUTHORS_EPOCHS}",)
    return Probe(path, who, entry, authors.accuracy, authors.test, differing)


def run_of(probe: Probe, runs: Sequence[Run]) -> Run | None:
    """The run whose network was probed, by its size, its test accuracy and its name; None where it cannot be told."""
    alike = [run for run in runs if _is_of(probe, run)]
    named = [run for run in alike if run.path.name == probe.who]
    beside = [run for run in named if probe.path.parent in (run.path, *run.path.parents)]
    found = beside or named or alike
    return found[0] if len(found) == 1 else None


def _is_of(probe: Probe, run: Run) -> bool:
    result = run.result
    if result is None or result.test is None or result.student_parameters != probe.entry.parameters:
        return False
    apart = abs(result.test.get("accuracy", -1.0) - probe.entry.accuracy)
    return apart <= (_NEAR if run.path.name == probe.who else _SAME)

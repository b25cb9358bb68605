"""All sections of one evaluation in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation.classes import classes
from limbeck.report.evaluation.correlation import correlation
from limbeck.report.evaluation.cost import cost
from limbeck.report.evaluation.elsewhere import elsewhere
from limbeck.report.evaluation.embedding import embedding
from limbeck.report.evaluation.encoders import followed, index, missed
from limbeck.report.evaluation.examples import examples
from limbeck.report.evaluation.fidelity import fidelity
from limbeck.report.evaluation.language import answers, tasks, writing
from limbeck.report.evaluation.overview import overview
from limbeck.report.evaluation.reliability import reliability
from limbeck.report.evaluation.robustness import robustness
from limbeck.report.looks import method_numbers, network_numbers
from limbeck.report.sections import Section

_PARTS: Sequence[Callable[[Evaluation, str, Mapping[str, int]], list[Section]]] = (
    cost,
    writing,
    index,
    answers,
    tasks,
    followed,
    missed,
    classes,
    examples,
    fidelity,
    correlation,
    embedding,
    reliability,
    robustness,
    elsewhere,
)


def evaluation_sections(
    evaluation: Evaluation,
    prefix: str = "evaluation",
    leave_out: Collection[str] = (),
    numbers: Mapping[str, int] | None = None,
) -> list[Section]:
    """What one evaluation has to show; a part that it does not have gives no section.

    prefix: letters, digits and hyphens; begins the names of all sections and plates, which are unique for each prefix.
    leave_out: names of plates, without the prefix, that are not wanted. numbers: of the colour of each method on the page, by
    its label; those of the evaluation's own methods where there are no others.
    """
    looks = network_numbers(evaluation, dict(numbers or method_numbers((), [evaluation])))
    found = [section for part in _PARTS for section in part(evaluation, prefix, looks)]
    unwanted = {f"{prefix}-{name}" for name in leave_out}
    kept = [
        replace(section, plates=tuple(plate for plate in section.plates if plate.name not in unwanted))
        for section in found
    ]
    return [overview(evaluation, prefix), *kept]

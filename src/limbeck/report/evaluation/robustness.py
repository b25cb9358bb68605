"""What is left of the accuracy when images are corrupted or attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.robustness import Attacked, Corrupted, Robustness
from limbeck.report.evaluation._draw import Dots, Line, dot_figure, line_figure
from limbeck.report.evaluation._words import Cast, cast, in_order, percent, teachers
from limbeck.report.plates import Plate
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, table

_OURS, _CIFAR_C = "limbeck's own corruptions", "CIFAR-C"
_NAMES = {"fgsm": "FGSM", "pgd": "PGD"}
_ACCURACY = "accuracy, %"
_COLUMNS = (
    Column("network", "Its short name", number=False),
    Column("unchanged", "Accuracy on the same images as they are"),
    Column("corrupted", "Mean over limbeck's own corruptions and five severities; not ImageNet-C's"),
    Column("corrupted / unchanged", "How much of the accuracy is left"),
    Column("CIFAR-C", "Mean over the corruptions and severities of the published files"),
)


def robustness(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Accuracy against severity, by corruption and against an attack's budget, and the means in a table."""
    found = evaluation.robustness
    if not found:
        return []
    shown = cast(evaluation, found, numbers)
    plates = _corrupted(
        f"{prefix}-corruptions", _OURS, {who: found[who].corruptions for who in shown.numbers}, found, shown
    )
    plates += _corrupted(
        f"{prefix}-cifar-c", _CIFAR_C, {who: found[who].cifar_c or () for who in shown.numbers}, found, shown
    )
    attacks = dict.fromkeys(attack.name for who in shown.numbers for attack in found[who].attacks)
    plates += [
        _attack(f"{prefix}-attack-{name if name in _NAMES else number}", name, found, shown)
        for number, name in enumerate(attacks)
    ]
    rows = [_row(who, found[who]) for who in in_order(evaluation, found)]
    lead = (
        f"On {max(each.count for each in found.values()):,} images. Severity 0 and budget 0 are the images as they are."
        f"{shown.remark}"
    )
    return [
        Section(
            f"{prefix}-robustness",
            "Robustness",
            tuple(plates),
            table("Robustness", _COLUMNS, rows, teachers(evaluation)),
            lead,
        )
    ]


_Kinds = Mapping[str, Sequence[Corrupted]]


def _corrupted(name: str, source: str, kinds: _Kinds, found: Mapping[str, Robustness], shown: Cast) -> list[Plate]:
    """Two figures of one source of corruptions, or none where no network was tried on it."""
    having = {who: each for who, each in kinds.items() if each}
    if not having:
        return []
    legend = [(who, number) for who, number in shown.legend if who in having]
    lines = [
        Line(who, range(len(means) + 1), [100 * value for value in (found[who].clean, *means)], number)
        for who, number in legend
        for means in [_by_severity(having[who])]
    ]
    rows = list(dict.fromkeys(kind.name for each in having.values() for kind in each))
    dots = [Dots(_means(having[who], rows), number) for who, number in legend]
    return [
        Plate(
            f"{name}-severity",
            f"Severity: {source}",
            f"Mean over {len(rows)} corruptions of {source}.",
            f"Accuracy against severity, mean over {source}. {_lines_told(lines, 'from severity 0 on')}.",
            line_figure(lines, "severity", _ACCURACY),
            legend,
        ),
        Plate(
            f"{name}-kinds",
            f"Corruption: {source}",
            "Mean over the severities.",
            f"Accuracy by corruption, mean over the severities, {source}. {_dots_told(rows, legend, dots)}.",
            dot_figure([_spaced(row) for row in rows], dots, _ACCURACY),
            legend,
            marked=True,
        ),
    ]


def _by_severity(kinds: Sequence[Corrupted]) -> list[float]:
    """Means over the corruptions at each severity that all of them have."""
    return [sum(values) / len(kinds) for values in zip(*(kind.severities for kind in kinds), strict=False)]


def _means(kinds: Sequence[Corrupted], rows: Sequence[str]) -> list[float | None]:
    known = {kind.name: 100 * kind.mean for kind in kinds}
    return [known.get(row) for row in rows]


def _attack(name: str, attack: str, found: Mapping[str, Robustness], shown: Cast) -> Plate:
    title = _NAMES.get(attack, attack)
    tried = {who: sorted(_of(found[who], attack), key=lambda each: each.budget) for who in shown.numbers}
    legend = [(who, number) for who, number in shown.legend if tried[who]]
    lines = [
        Line(
            who,
            [0.0, *(each.budget for each in tried[who])],
            [100 * value for value in (found[who].clean, *(each.accuracy for each in tried[who]))],
            number,
        )
        for who, number in legend
    ]
    steps = max(each.steps for who, _ in legend for each in tried[who])
    ways = f"{steps} steps" if steps > 1 else "one step"
    return Plate(
        name,
        f"Attack: {title}",
        f"In {ways}, with each network's own gradient. The budget is the most by which a pixel's value of 0 to 255 changes.",
        f"Accuracy against the budget of {title}, {ways}. {_lines_told(lines, 'at budgets', budgets=True)}.",
        line_figure(lines, "budget, of 255", _ACCURACY),
        legend,
    )


def _of(found: Robustness, attack: str) -> list[Attacked]:
    return [each for each in found.attacks if each.name == attack]


def _lines_told(lines: Sequence[Line], where: str, *, budgets: bool = False) -> str:
    def at(line: Line) -> str:
        return f"{where} {', '.join(f'{x:g}' for x in line.x)}: " if budgets else f"{where}: "

    return "; ".join(f"{line.label} {at(line)}{', '.join(f'{y:.1f}' for y in line.y)} %" for line in lines)


def _dots_told(rows: Sequence[str], legend: Sequence[tuple[str, int]], dots: Sequence[Dots]) -> str:
    def told(values: Sequence[float | None]) -> str:
        pairs = zip(rows, values, strict=True)
        return ", ".join(f"{_spaced(row)} {value:.1f}" for row, value in pairs if value is not None)

    return "; ".join(f"{who}: {told(each.values)} %" for (who, _), each in zip(legend, dots, strict=True))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _row(who: str, found: Robustness) -> list[Cell]:
    published = found.cifar_c
    mean = sum(kind.mean for kind in published) / len(published) if published else None
    two: Callable[[float], str] = "{:.2f}".format
    return [
        Cell(who),
        figure(found.clean, percent),
        figure(found.mean_corruption if found.corruptions else None, percent),
        figure(found.relative if found.corruptions else None, two),
        figure(mean, percent),
    ]

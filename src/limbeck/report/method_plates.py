"""Figures of methods: learning curves, tests, accuracy against cost, and losses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from limbeck.evaluate.record import Evaluation
from limbeck.report.costs import macs_by_parameters
from limbeck.report.curves import loss_curves, validation_curve
from limbeck.report.figures import Dots, Mark, Series, against, curves, dots, panels
from limbeck.report.material import Material, Method
from limbeck.report.names import ALONE
from limbeck.report.plate_html import COLOURS
from limbeck.report.plates import Plate
from limbeck.report.rows import MethodRow, judged
from limbeck.report.sections import Section

# More lines in one figure than colours are not told apart: then each method has a panel, or most stand back in grey.
_FEW = COLOURS


def accuracy_section(material: Material) -> list[Section]:
    """Accuracy over epochs, and what the test judges by, of every run and against cost."""
    plates: list[Plate | None] = []
    for number, ((data, student), contest) in enumerate(_contests(material.methods).items()):
        where = f"{student} on {data}"
        teacher = _teacher(data, contest, material)
        plates += [
            _validation(f"validation{number}", where, contest, material.numbers),
            _tests(f"test{number}", where, contest, teacher, material.numbers),
        ]
    names = dict.fromkeys(row.data for row in material.rows)
    plates += [_against_cost(f"cost{number}", data, material) for number, data in enumerate(names)]
    return _section("accuracy", "Accuracy", plates)


def _teacher(data: str, contest: Sequence[Method], material: Material) -> float | None:
    """The teacher of all of these methods on the test split, judged as they are; None where there are several."""
    names = {method.row.teacher for method in contest if method.row.teacher is not None}
    teachers = [row for row in material.rows if row.is_teacher and _is_one_of(row, data, names)]
    found = [row.judged.mean for row in teachers if row.judged and row.judged_words == contest[0].row.judged_words]
    return found[0] if len(names) == len(found) == 1 else None


def _is_one_of(row: MethodRow, data: str, names: Collection[str]) -> bool:
    return row.data == data and row.student in names


def losses_section(material: Material) -> list[Section]:
    """The loss of each method, by its terms."""
    plates = [_losses(f"loss{number}", method) for number, method in enumerate(material.methods)]
    return _section("losses", "Loss terms, as they are summed", plates)


def _section(name: str, title: str, plates: Iterable[Plate | None]) -> list[Section]:
    drawn = tuple(plate for plate in plates if plate is not None)
    return [Section(name, title, drawn)] if drawn else []


def _contests(methods: Sequence[Method]) -> dict[tuple[str, str], list[Method]]:
    """The methods that compete: those with the same data and student."""
    found: dict[tuple[str, str], list[Method]] = {}
    for method in methods:
        found.setdefault((method.row.data, method.row.student), []).append(method)
    return found


def _legend(lines: Sequence[Series]) -> tuple[tuple[str, int], ...]:
    return tuple((line.label, line.number) for line in lines)


# Over epochs


def _validation(name: str, where: str, contest: Sequence[Method], numbers: Mapping[str, int]) -> Plate | None:
    curved = [(method, validation_curve(method.row.label, method.runs)) for method in contest]
    drawn = [(method, replace(line, number=numbers[method.row.label])) for method, line in curved if line is not None]
    lines = [line for _, line in drawn]
    if not lines:
        return None
    reference = next((line for method, line in drawn if _is_reference(method.row)), None)
    # An unfinished line ends where its runs are now.
    ends = "; ".join(
        f"{line.label} {'is at' if method.progress else 'ends at'} {line.mean[-1]:.1f} %" for method, line in drawn
    )
    words = contest[0].row.accuracy_words
    alternative = f"Validation {words} over epochs, {where}: {ends}."
    caption = f"{where}: mean of the seeds; the band spans the lowest and highest"
    y_label = f"validation {words}, %"
    plate = Plate(
        name,
        f"Validation {words}",
        caption,
        alternative,
        partial(curves, series=lines, y_label=y_label),
        _legend(lines),
    )
    if len(lines) <= _FEW:
        return plate
    shown = [("the panel's method", 0)] + ([(reference.label, 1)] if reference is not None else [])
    # The steep first epochs would take all of the height, and what sets methods apart none.
    bottom = min(median(line.mean) for line in lines) - 2
    caption += f"; all other methods in grey; what lies below {bottom:.0f} % is cut off"
    titles = [method.short for method, _ in drawn]
    draw = partial(panels, series=lines, titles=titles, reference=reference, y_label=y_label, bottom=bottom)
    return replace(plate, caption=caption, draw=draw, legend=tuple(shown), wide=True)


def _is_reference(row: MethodRow) -> bool:
    return row.baseline or (row.teacher is None and row.objective in ALONE)


def _losses(name: str, method: Method) -> Plate | None:
    lines = loss_curves(method.runs)
    if not lines:
        return None
    row = method.row
    ends = "; ".join(f"{line.label} from {line.mean[0]:.3g} to {line.mean[-1]:.3g}" for line in lines)
    where = f"{row.student} on {row.data}"
    alternative = f"Training loss of {row.label}, {where}, by term: {ends}."
    draw = partial(curves, series=lines, y_label="loss, weighted")
    return Plate(name, row.label, where, alternative, draw, _legend(lines))


# On the test split


def _tests(
    name: str, where: str, contest: Sequence[Method], teacher: float | None, numbers: Mapping[str, int]
) -> Plate | None:
    tested = [(numbers[method.row.label], method.row, _tested(method)) for method in contest]
    many = sum(bool(values) for _, _, values in tested) > _FEW
    points = [
        # Names stand beside the rows: of many, the colour tells the baseline alone.
        Dots(row.label, values, int(row.baseline) if many else number)
        for number, row, values in tested
        if values
    ]
    if len(points) < 2:
        return None
    listed = "; ".join(f"{dot.label}: {', '.join(f'{value:.1f}' for value in dot.values)} %" for dot in points)
    words = contest[0].row.judged_words
    alternative = f"Test {words} of every run, {where}. {listed}."
    alternative += f" Teacher: {100 * teacher:.1f} %." if teacher is not None else ""
    mark = ("teacher", 100 * teacher) if teacher is not None else None
    draw = partial(dots, methods=points, x_label=f"test {words}, %", mark=mark)
    return Plate(name, f"Test {words}", f"{where}: a dot is a run, the bar is their mean", alternative, draw)


def _tested(method: Method) -> list[float]:
    found = [judged(run.result) for run in method.runs if run.result is not None]
    return [100 * value for value in found if value is not None]


# Against cost


def has_operations_of(evaluation: Evaluation, material: Material) -> bool:
    """Whether :func:`accuracy_section` draws all networks of an evaluation against multiply-accumulates, over seeds."""
    found = _costs(evaluation.data, material)
    if found is None or not found.counted:
        return False
    drawn = {(row.is_teacher, row.student, row.parameters) for row in found.rows}
    networks = evaluation.networks.values()
    return {(each.role == "teacher", each.model, each.parameters) for each in networks} <= drawn


@dataclass(frozen=True)
class _Costs:
    """The rows with a test on one data set, and what they cost by their parameters: operations where ``counted``."""

    rows: Sequence[MethodRow]
    costs: dict[int, int]
    counted: bool


def _costs(data: str, material: Material) -> _Costs | None:
    """None where there is nothing to see: all cost the same, or none was trained here."""
    tested = [row for row in material.rows if row.data == data and row.judged is not None and row.parameters]
    students = [row for row in tested if not row.is_teacher]
    tested = [row for row in tested if not students or row.judged_words == students[0].judged_words]
    macs = macs_by_parameters(data, material.records)
    counted = all(row.parameters in macs for row in tested)
    costs = macs if counted else {row.parameters: row.parameters for row in tested}
    if len({costs[row.parameters] for row in tested}) < 2 or all(row.is_teacher for row in tested):
        return None
    return _Costs(tested, costs, counted)


def _against_cost(name: str, data: str, material: Material) -> Plate | None:
    """What the test judges by against multiply-accumulates where evaluations counted them for all, else against parameters."""
    found = _costs(data, material)
    if found is None:
        return None
    tested, costs = found.rows, found.costs
    what = "multiply-accumulates" if found.counted else "parameters"
    lines = _lines([row for row in tested if not row.is_teacher], costs, material.numbers)
    marks = [
        Mark(row.label, costs[row.parameters], 100 * row.judged.mean) for row in tested if row.is_teacher and row.judged
    ]
    shown, others = _told_apart(lines, [row for row in tested if row.baseline])
    told = "; ".join(_points_in_words(line) for line in lines)
    told += "".join(f"; {mark.label}: {mark.y:.1f} % at {mark.x:,}" for mark in marks)
    caption = f"{data}: mean of the seeds; the bar is ± one deviation, a star is a teacher"
    words = tested[0].judged_words
    return Plate(
        name,
        f"{words.capitalize() if words.islower() else words} against cost",
        caption + (f"; the other {len(others)} methods in grey" if others else ""),
        f"Test {words} against {what}, {data}. {told}.",
        partial(against, series=shown, others=others, marks=marks, x_label=what, y_label=f"test {words}, %"),
        _legend(shown),
        marked=True,
    )


def _lines(rows: Sequence[MethodRow], costs: dict[int, int], numbers: Mapping[str, int]) -> list[Series]:
    """A line a method, through its students of different cost."""
    lines = []
    for label in dict.fromkeys(row.label for row in rows):
        found = [(costs[row.parameters], row.judged) for row in rows if row.label == label and row.judged]
        points = sorted(found, key=lambda point: point[0])
        sizes, stats = zip(*points, strict=True)
        means, spreads = [100 * stat.mean for stat in stats], [100 * (stat.std or 0) for stat in stats]
        low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
        lines.append(Series(label, sizes, means, low, high, numbers[label]))
    return lines


def _told_apart(lines: Sequence[Series], baselines: Sequence[MethodRow]) -> tuple[list[Series], list[Series]]:
    """The lines to draw in colour and those to draw in grey: where there are many, the best and the baselines stand out."""
    if len(lines) <= _FEW:
        return list(lines), []
    best = max(lines, key=lambda line: max(line.mean))
    labels = {best.label, *(row.label for row in baselines)}
    shown = [line for line in lines if line.label in labels]
    coloured = [replace(line, number=0 if line is best else 1) for line in shown]
    return coloured, [line for line in lines if line.label not in labels]


def _points_in_words(line: Series) -> str:
    points = ", ".join(f"{mean:.1f} % at {size:,}" for size, mean in zip(line.x, line.mean, strict=True))
    return f"{line.label}: {points}"

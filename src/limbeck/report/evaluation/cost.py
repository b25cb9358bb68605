"""What the networks cost, and what accuracy that buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from limbeck.evaluate.cost import Cost, Costs, Latency, Ratios
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._draw import Dots, dot_figure, over_decades, sheet
from limbeck.report.evaluation._words import cast, in_order, percent, teachers
from limbeck.report.plates import Draw, Palette, Plate, clipped, marker, quiet
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

ACCURACY_AGAINST_COST = "cost-accuracy"
"""The plate that a comparison's own may stand for."""

_SIZE = (4.4, 3.3)
_BESIDE = 3.0  # points within so many times each other's cost have their names in one column


def cost(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Accuracy against multiply-accumulates, latency with its quartiles, and the figures of all in tables."""
    costs = evaluation.cost
    if costs is None or not costs.networks:
        return []
    plates = [_against(evaluation, costs, numbers, f"{prefix}-{ACCURACY_AGAINST_COST}")]
    sizes = dict.fromkeys(each.batch for one in costs.networks.values() for each in one.latency)
    plates += [_latency(evaluation, costs, size, numbers, f"{prefix}-latency-{size}") for size in sizes]
    shown = in_order(evaluation, costs.networks)
    rows = [_row(who, costs.networks[who], list(sizes)) for who in shown]
    body = table("Cost of the networks", _columns(evaluation, list(sizes)), rows, teachers(evaluation))
    body += _ratios(evaluation, costs, list(sizes))
    lead = (
        f"Operations of one {_one(evaluation)}{_length(costs)}; time and memory measured on {costs.device}, the networks in "
        "turn, preprocessing left out."
        f"{cast(evaluation, costs.networks, numbers).remark}"
    )
    return [Section(f"{prefix}-cost", "Cost", tuple(plate for plate in plates if plate is not None), body, lead)]


# Accuracy against cost


@dataclass(frozen=True)
class _Point:
    label: str
    macs: int
    accuracy: float
    number: int


def _against(evaluation: Evaluation, costs: Costs, numbers: Mapping[str, int], name: str) -> Plate | None:
    having = {who: each for who, each in costs.networks.items() if each.macs > 0}
    shown = cast(evaluation, having, numbers)
    found = [
        _Point(who, having[who].macs, 100 * evaluation.quality(who), number) for who, number in shown.numbers.items()
    ]
    if not found:
        return None
    told = "; ".join(f"{point.label} {point.accuracy:.1f} % with {point.macs:,}" for point in found)
    return Plate(
        name,
        f"{_quality(evaluation)} against cost",
        f"Multiply-accumulates of one {_one(evaluation)}, on a logarithmic axis: up and to the left is better.",
        f"{_quality(evaluation)} against multiply-accumulates of one {_one(evaluation)}: {told}.",
        _scatter(found, _one(evaluation), evaluation.quality_name),
    )


def _one(evaluation: Evaluation) -> str:
    """What costs are of."""
    return "image" if evaluation.kind == "images" else "text"


def _length(costs: Costs) -> str:
    """The tokens of the text, which teacher and student may count differently."""
    tokens = dict.fromkeys(f"{each.input[0]:,}" for each in costs.networks.values() if len(each.input) == 1)
    return f" of {' or '.join(tokens)} tokens" if tokens else ""


def _quality(evaluation: Evaluation) -> str:
    name = evaluation.quality_name
    return f"{name[0].upper()}{name[1:]}" if name.islower() else name


def _scatter(found: Sequence[_Point], one: str, quality: str) -> Draw:
    def draw(palette: Palette) -> Figure:
        with sheet(palette, _SIZE) as figure:
            axes = figure.subplots()
            for point in found:
                colour, shape = palette.colour(point.number), marker(point.number)
                axes.scatter([point.macs], [point.accuracy], s=42, color=colour, marker=shape, linewidths=0, zorder=3)
            axes.margins(y=0.15)
            middle = (min(point.macs for point in found) * max(point.macs for point in found)) ** 0.5
            low, high = axes.get_ylim()
            for point, place in _places(found, 0.075 * (high - low)):
                left = point.macs > middle
                axes.annotate(
                    clipped(point.label, 20),
                    (point.macs, point.accuracy),
                    xytext=(-16 if left else 16, 72 * 0.72 * _SIZE[1] * (place - point.accuracy) / (high - low)),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    va="center",
                    fontsize=9,
                    color=palette.ink,
                    arrowprops={"arrowstyle": "-", "color": palette.grid, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3},
                )
            axes.set_xlabel(f"multiply-accumulates of one {one}")
            axes.set_ylabel(f"{quality}, %")
            over_decades(axes, [point.macs for point in found], EngFormatter(sep=""))
            quiet(axes, palette)
        return figure

    return draw


def _places(found: Sequence[_Point], gap: float) -> list[tuple[_Point, float]]:
    """Heights of the names: each at its point's, but ``gap`` apart where points of about one cost are closer."""
    places: list[tuple[_Point, float]] = []
    group: list[_Point] = []
    for point in sorted(found, key=lambda each: each.macs):
        if group and point.macs > _BESIDE * group[-1].macs:
            places += _apart(group, gap)
            group = []
        group.append(point)
    return places + _apart(group, gap)


def _apart(group: Sequence[_Point], gap: float) -> list[tuple[_Point, float]]:
    ordered = sorted(group, key=lambda each: each.accuracy)
    heights: list[float] = []
    for point in ordered:
        heights.append(max(point.accuracy, heights[-1] + gap) if heights else point.accuracy)
    # As far below their points as above.
    shift = sum(height - point.accuracy for height, point in zip(heights, ordered, strict=True)) / len(ordered)
    return [(point, height - shift) for point, height in zip(ordered, heights, strict=True)]


# Latency


def _latency(evaluation: Evaluation, costs: Costs, size: int, numbers: Mapping[str, int], name: str) -> Plate | None:
    found = {who: each for who in costs.networks if (each := _at(costs.networks[who], size)) is not None}
    shown = cast(evaluation, found, numbers)
    rows = list(shown.numbers)
    if not rows:
        return None
    dots = [
        Dots(
            [found[who].median_ms if who == row else None for row in rows],
            number,
            [found[who].low_ms],
            [found[who].high_ms],
        )
        for who, number in shown.numbers.items()
    ]
    one = _one(evaluation)
    images = f"1 {one}" if size == 1 else f"{size:,} {one}s"
    told = "; ".join(
        f"{who} {_time(found[who].median_ms)} ms (quartiles {_time(found[who].low_ms)} to {_time(found[who].high_ms)})"
        for who in rows
    )
    return Plate(
        name,
        f"Latency of {images}",
        f"Median of a forward pass on {costs.device}; the bar spans the quartiles.",
        f"Milliseconds of a forward pass of {images}: {told}.",
        dot_figure(rows, dots, "milliseconds", logarithmic=_wide(found)),
    )


def _at(found: Cost, size: int) -> Latency | None:
    return next((each for each in found.latency if each.batch == size), None)


def _wide(found: Mapping[str, Latency]) -> bool:
    medians = [each.median_ms for each in found.values()]
    return max(medians) > 8 * min(medians)


# Tables


def _columns(evaluation: Evaluation, sizes: Sequence[int]) -> list[Column]:
    one = _one(evaluation)
    return [
        Column("network", "Its short name", number=False),
        Column("parameters", "Number of parameters"),
        Column("MACs", f"Multiply-accumulates of one {one}"),
        Column("weights", "Bytes of weights and buffers"),
        Column("file", "Bytes of the weights file"),
        *(Column(f"ms at {size:,}", f"Median milliseconds of a forward pass of {size:,} {one}s") for size in sizes),
        *(Column(f"{one}s/s at {size:,}", f"{one.capitalize()}s a second at batches of {size:,}") for size in sizes),
        Column("memory", "Most bytes alive in a forward pass of the larger batch"),
    ]


def _row(who: str, found: Cost, sizes: Sequence[int]) -> list[Cell]:
    times = [_at(found, size) for size in sizes]
    return [
        Cell(who),
        figure(found.parameters, _whole),
        figure(found.macs, _whole),
        figure(found.bytes, _bytes),
        figure(found.file_bytes, _bytes),
        *(figure(None if each is None else each.median_ms, _time) for each in times),
        *(figure(None if each is None else each.images_per_second, _whole) for each in times),
        figure(found.memory_bytes, _bytes),
    ]


def _ratios(evaluation: Evaluation, costs: Costs, sizes: Sequence[int]) -> str:
    found = costs.ratios
    if not found:
        return ""
    name = evaluation.quality_name
    columns = [
        Column("teacher ÷ student", "The student", number=False),
        Column(f"{name} kept", f"The student's {name} over the teacher's"),
        Column("parameters", "The teacher's parameters over the student's"),
        Column("MACs", "The teacher's multiply-accumulates over the student's"),
        Column("weights", "The teacher's bytes over the student's"),
        *(
            Column(f"time at {size:,}", f"How many times faster the student is at batches of {size:,}")
            for size in sizes
        ),
        Column("memory", "The teacher's memory over the student's"),
    ]
    rows = [_ratio_row(evaluation, who, found[who], len(sizes)) for who in in_order(evaluation, found)]
    words = "The teacher's figures over each student's: how many times smaller or faster the student is."
    return note(words) + table("The teacher's cost over the student's", columns, rows)


def _ratio_row(evaluation: Evaluation, who: str, found: Ratios, sizes: int) -> list[Cell]:
    teacher = evaluation.quality(evaluation.teacher) if evaluation.teacher is not None else 0.0
    kept = evaluation.quality(who) / teacher if teacher else None
    times = [*found.latency, *[None] * sizes][:sizes]
    figures = (found.parameters, found.macs, found.bytes, *times, found.memory_bytes)
    return [Cell(who), figure(kept, percent), *(figure(value, lambda value: f"{value:.1f} ×") for value in figures)]


def _time(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB"

"""What was evaluated, how the networks did, and what is missing."""

from __future__ import annotations

import html

from limbeck.evaluate.record import Entry, Evaluation
from limbeck.report.evaluation._words import in_order, percent, teachers, three
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, table

_COLUMNS = (
    Column("network", "Its short name", number=False),
    Column("model", "The architecture", number=False),
    Column("method", "How it was trained", number=False),
    Column("parameters", "Number of parameters"),
    Column("accuracy", "Share of images whose class comes first"),
    Column("top 5", "Share of images whose class is among the first five"),
    Column("NLL", "Mean negative log likelihood, in nats; lower is better"),
    Column("agreement", "Share of images for which it says what the teacher says"),
    Column("KL", "Mean KL divergence of the student's answers from the teacher's, in nats; lower is closer"),
)


def overview(evaluation: Evaluation, prefix: str) -> Section:
    """The networks in a table, and what was left out with the reason."""
    counts = {network.count for network in evaluation.networks.values()}
    images = f"{counts.pop():,} images" if len(counts) == 1 else "images"
    classes = f"{len(evaluation.classes):,} class{'es' if len(evaluation.classes) != 1 else ''}"
    one = "Each row is one network: how far other seeds are from it is not shown."
    lead = f"{images[0].upper()}{images[1:]} of {classes}. {one}"
    rows = [_row(who, evaluation.networks[who]) for who in in_order(evaluation, evaluation.networks)]
    found = table("Networks that were evaluated", _COLUMNS, rows, teachers(evaluation))
    return Section(
        f"{prefix}-overview",
        f"Evaluation: {evaluation.data}, {evaluation.split} split",
        html=found + _missing(evaluation),
        lead=lead,
    )


def _row(who: str, network: Entry) -> list[Cell]:
    return [
        Cell(who),
        Cell(network.model),
        Cell(network.method or ""),
        figure(network.parameters, lambda value: f"{value:,.0f}"),
        figure(network.accuracy, percent),
        figure(network.top5, percent),
        figure(network.nll, three),
        figure(network.agreement, percent),
        figure(network.kl, three),
    ]


def _missing(evaluation: Evaluation) -> str:
    parts = [
        f"<li><b>{html.escape(part)}</b> was left out: {html.escape(why)}</li>"
        for part, why in evaluation.failures.items()
    ]
    parts += [f"<li>{html.escape(remark)}</li>" for remark in evaluation.remarks]
    return f'<ul class="runs">{"".join(parts)}</ul>' if parts else ""

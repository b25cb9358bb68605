"""What was evaluated, how the networks did, and what is missing."""

from __future__ import annotations

import html

from limbeck.report.evaluation._tables import Cell, Column, figure, table
from limbeck.report.evaluation._words import in_order, percent, teachers, three
from limbeck.report.evaluation.record import Network, Record
from limbeck.report.sections import Section

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


def overview(record: Record, prefix: str) -> Section:
    """The networks in a table, and what was left out with the reason."""
    counts = {network.count for network in record.networks.values()}
    images = f"{counts.pop():,} images" if len(counts) == 1 else "images"
    classes = f"{len(record.classes):,} class{'es' if len(record.classes) != 1 else ''}"
    one = "Each row is one network: how far other seeds are from it is not shown."
    lead = f"{images[0].upper()}{images[1:]} of {classes}. {one}"
    rows = [_row(who, record.networks[who]) for who in in_order(record, record.networks)]
    found = table("Networks that were evaluated", _COLUMNS, rows, teachers(record))
    return Section(
        f"{prefix}-overview",
        f"Evaluation: {record.data}, {record.split} split",
        html=found + _missing(record),
        lead=lead,
    )


def _row(who: str, network: Network) -> list[Cell]:
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


def _missing(record: Record) -> str:
    parts = [
        f"<li><b>{html.escape(part)}</b> was left out: {html.escape(why)}</li>" for part, why in record.failures.items()
    ]
    parts += [f"<li>{html.escape(remark)}</li>" for remark in record.remarks]
    return f'<ul class="runs">{"".join(parts)}</ul>' if parts else ""

"""What was evaluated, how the networks did, and what is missing."""

from __future__ import annotations

import html
from dataclasses import replace

from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._words import in_order, percent, teachers, three
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, table

_COLUMNS = (
    Column("network", "Its short name", number=False),
    Column("model", "The architecture", number=False),
    Column("method", "How it was trained", number=False),
    Column("parameters", "Number of parameters"),
    Column("nDCG@10", "How well the first ten documents are ranked, 1 at best"),
    Column("MRR@10", "Mean of one over the place of the first relevant document among ten"),
    Column("recall@10", "Share of the relevant documents among the first ten"),
    Column("recall@100", "Share of the relevant documents among the first hundred"),
    Column("MAP", "Mean average precision"),
    Column("accuracy", "Share of the samples for which what is right comes first"),
    Column("top 5", "Share of the samples for which what is right is among the first five"),
    Column("NLL", "Mean negative log likelihood, in nats; lower is better"),
    Column("perplexity", "exp of it; lower is better"),
    Column("agreement", "Share of the samples for which it says what the teacher says"),
    Column("KL", "Mean KL divergence of the student's answers from the teacher's, in nats; lower is closer"),
    Column("reverse KL", "Mean KL divergence of the teacher's answers from the student's, in nats"),
)


def overview(evaluation: Evaluation, prefix: str) -> Section:
    """The networks in a table, and what was left out with the reason."""
    counts = {network.count for network in evaluation.networks.values()}
    samples = f"{counts.pop():,} {evaluation.samples}" if len(counts) == 1 else evaluation.samples
    classes = f"{len(evaluation.classes):,} class{'es' if len(evaluation.classes) != 1 else ''}"
    one = "Each row is one network: how far other seeds are from it is not shown."
    what = f"{samples[0].upper()}{samples[1:]}{f' of {classes}' if evaluation.classes else ''}"
    rows = [_row(evaluation, who) for who in in_order(evaluation, evaluation.networks)]
    lead = f"{what}{_searched(evaluation)}. {one}"
    columns = [_named(column, evaluation) for column in _COLUMNS]
    found = table("Networks that were evaluated", columns, rows, teachers(evaluation))
    return Section(
        f"{prefix}-overview",
        f"Evaluation: {evaluation.data}, {evaluation.split} split",
        html=found + _missing(evaluation),
        lead=lead,
    )


def _named(column: Column, evaluation: Evaluation) -> Column:
    """The column of accuracies says what is counted."""
    tokens = column.title == "accuracy" and evaluation.kind == "language"
    return replace(column, title=evaluation.quality_name) if tokens else column


def _searched(evaluation: Evaluation) -> str:
    """Among how many documents, where a collection was searched."""
    found = next(iter((evaluation.search or {}).values()), None)
    if found is None:
        return ""
    return f", each among {found.documents:,} documents; accuracy and agreement are of the first document"


def _row(evaluation: Evaluation, who: str) -> list[Cell]:
    network = evaluation.networks[who]
    searched, tokens = (evaluation.search or {}).get(who), (evaluation.tokens or {}).get(who)
    return [
        Cell(who),
        Cell(network.model),
        Cell(network.method or ""),
        figure(network.parameters, lambda value: f"{value:,.0f}"),
        *(
            figure(None if searched is None else getattr(searched, name), three)
            for name in ("ndcg_10", "mrr_10", "recall_10", "recall_100", "map")
        ),
        figure(network.accuracy, percent),
        figure(network.top5, percent),
        figure(network.nll, three),
        figure(None if tokens is None else tokens.perplexity, lambda value: f"{value:.4g}"),
        figure(network.agreement, percent),
        figure(network.kl, three),
        figure(None if tokens is None else tokens.reverse_kl, three),
    ]


def _missing(evaluation: Evaluation) -> str:
    parts = [
        f"<li><b>{html.escape(part)}</b> was left out: {html.escape(why)}</li>"
        for part, why in evaluation.failures.items()
    ]
    parts += [f"<li>{html.escape(remark)}</li>" for remark in evaluation.remarks]
    return f'<ul class="runs">{"".join(parts)}</ul>' if parts else ""

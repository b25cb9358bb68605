"""What the networks are worth beyond their task: other images, retrieval, and transfer."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.evaluate.database import Metric
from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.transfer import Transfer
from limbeck.report.evaluation._words import in_order, percent, teachers
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

_NETWORK = Column("network", "Its short name", number=False)
_METRICS: Mapping[Metric, str] = {"cosine": "cosine", "l2": "distance"}


def elsewhere(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """A section with a table each, of the parts that there are."""
    found = [_distribution(evaluation), _retrieval(evaluation), _database(evaluation), _transfer(evaluation)]
    return [
        Section(f"{prefix}-{name}", title, html=body, lead=lead)
        for name, title, lead, body in found
        if body is not None
    ]


_Part = tuple[str, str, str, str | None]


def _distribution(evaluation: Evaluation) -> _Part:
    name, title = "distribution", "Images of other data"
    found = evaluation.distribution
    if not found:
        return name, title, "", None
    columns = (
        _NETWORK,
        Column("AUROC, energy", "Area under the ROC curve of the energy score; 50 % is guessing"),
        Column(
            "FPR95, energy", "Share of other images taken for the data's where 95 % of the data's are; lower is better"
        ),
        Column("AUROC, MSP", "Area under the ROC curve of the largest probability"),
        Column("FPR95, MSP", "The same share by the largest probability"),
    )
    shown = in_order(evaluation, found)
    rows = [
        [
            Cell(who),
            *(
                figure(value, percent)
                for score in (found[who].energy, found[who].msp)
                for value in (score.auroc, score.fpr95)
            ),
        ]
        for who in shown
    ]
    others = "; ".join(dict.fromkeys(found[who].other for who in shown))
    lead = f"Whether a network is less sure of images of none of its classes: {others}. Nothing was fitted to them."
    return name, title, lead, table(title, columns, rows, teachers(evaluation))


def _retrieval(evaluation: Evaluation) -> _Part:
    name, title = "retrieval", "Retrieval by embedding"
    found = evaluation.retrieval
    if not found:
        return name, title, "", None
    columns = (
        _NETWORK,
        Column("mAP", "Mean average precision over the queries"),
        Column("precision at 1", "Share of images whose nearest is of their class"),
        Column("chance", "About the mAP of a random order"),
    )
    shown = in_order(evaluation, found)
    rows = [
        [
            Cell(who),
            *(figure(value, percent) for value in (found[who].map, found[who].precision_at_1, found[who].chance)),
        ]
        for who in shown
    ]
    count = max(found[who].queries for who in shown)
    lead = f"Each of {count:,} images is a query among all others, by cosine; those of its class should come first."
    return name, title, lead, table(title, columns, rows, teachers(evaluation))


def _database(evaluation: Evaluation) -> _Part:
    name, title = "database", "Retrieval of training images"
    found = evaluation.database
    if not found:
        return name, title, "", None
    first = next(iter(found.values()))
    columns = [_NETWORK]
    for each in first:
        by = _METRICS[each.metric]
        columns += [
            Column(f"mAP, {by}", f"Mean over the queries of the 11-point average precision, by {by}"),
            Column(f"precision at {each.top}, {by}", f"Share of the query's class among the first {each.top}, by {by}"),
        ]
    columns.append(Column("chance", "About the mAP of a random order"))
    shown = in_order(evaluation, found)
    rows = [
        [
            Cell(who),
            *(figure(value, percent) for each in found[who] for value in (each.map, each.precision)),
            figure(found[who][0].chance, percent),
        ]
        for who in shown
    ]
    lead = (
        f"Each of {first[0].queries:,} images of the {evaluation.split} split is a query among the {first[0].database:,} "
        "images of the training split; those of its class should come first."
    )
    return name, title, lead, table(title, columns, rows, teachers(evaluation))


def _transfer(evaluation: Evaluation) -> _Part:
    name, title = "transfer", "Transfer"
    found = evaluation.transfer
    if not found:
        return name, title, "", None
    columns = (
        _NETWORK,
        Column("logistic regression", "Accuracy of logistic regression on frozen embeddings"),
        Column("C", "Its inverse strength of the penalty, chosen on validation images"),
        Column("nearest neighbours", "Accuracy of the k nearest by cosine on frozen embeddings"),
        Column("k", "Their number, chosen on validation images"),
        Column(
            "authors' protocol", "Accuracy of the ICD authors' protocol, in which batch norms adapt to the other data"
        ),
    )
    shown = in_order(evaluation, found)
    rows = [_transfer_row(who, found[who]) for who in shown]
    other = f" to {evaluation.transfer_data}" if evaluation.transfer_data else ""
    lead = "What the embeddings tell about other classes. The network's weights stay as they are."
    frozen = next((each.frozen for each in found.values() if each.frozen is not None), None)
    words = (
        "" if frozen is None else f"{frozen.train + frozen.validation:,} images to fit on, {frozen.test:,} to test on."
    )
    body = table(title, columns, rows, teachers(evaluation)) + (note(words) if words else "")
    return name, f"{title}{other}", lead, body


def _transfer_row(who: str, found: Transfer) -> list[Cell]:
    frozen, authors = found.frozen, found.authors
    probes = (None, None) if frozen is None else (frozen.logistic, frozen.knn)
    cells = [Cell(who)]
    for probe in probes:
        cells.append(figure(None if probe is None else probe.accuracy, percent))
        cells.append(figure(None if probe is None else probe.setting, lambda value: f"{value:g}"))
    return [*cells, figure(None if authors is None else authors.accuracy, percent)]

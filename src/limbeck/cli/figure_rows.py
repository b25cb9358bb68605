"""What the tables of an evaluation tell of each network, a row a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from limbeck.evaluate.calibration import Scaled
from limbeck.evaluate.classification import Classification
from limbeck.evaluate.database import DatabaseRetrieval, Metric
from limbeck.evaluate.distribution import OutOfDistribution
from limbeck.evaluate.record import Scored
from limbeck.evaluate.retrieval import Retrieval
from limbeck.evaluate.robustness import Robustness
from limbeck.evaluate.transfer import Transfer

T = TypeVar("T")
Row = tuple[str, Callable[[T], float | None], str]
"""A figure's name, how it is read, and how it is written."""

SCORES: list[Row[Scored]] = [
    ("accuracy", lambda score: score.accuracy, ".2%"),
    ("top-5 accuracy", lambda score: score.top5, ".2%"),
    ("negative log likelihood (nats)", lambda score: score.nll, ".4f"),
    ("agreement with the teacher", lambda score: score.agreement, ".2%"),
    ("KL(teacher ‖ student) (nats)", lambda score: score.kl, ".4f"),
]

CLASSES: list[Row[Classification]] = [("mean over the classes", lambda each: each.balanced, ".2%")]

CALIBRATION: list[Row[Scaled]] = [
    ("ECE, bins of equal width", lambda each: each.raw.ece, ".2%"),
    ("ECE, bins of equal mass", lambda each: each.raw.ece_equal_mass, ".2%"),
    ("largest gap of a bin", lambda each: each.raw.mce, ".2%"),
    ("Brier score (0 to 2)", lambda each: each.raw.brier, ".4f"),
    ("mean confidence", lambda each: each.raw.confidence, ".2%"),
    ("AUROC of confidence for being right", lambda each: each.raw.error_auroc, ".2%"),
    ("temperature, fitted on validation", lambda each: each.temperature, ".3f"),
    ("ECE after it, equal width", lambda each: None if each.scaled is None else each.scaled.ece, ".2%"),
    ("negative log likelihood after it (nats)", lambda each: None if each.scaled is None else each.scaled.nll, ".4f"),
]

RETRIEVAL: list[Row[Retrieval]] = [
    ("mean average precision", lambda each: each.map, ".2%"),
    ("precision at 1", lambda each: each.precision_at_1, ".2%"),
    ("share of relevant images", lambda each: each.chance, ".2%"),
]

_METRICS: Mapping[Metric, str] = {"cosine": "cosine", "l2": "Euclidean distance"}

DISTRIBUTION: list[Row[OutOfDistribution]] = [
    ("AUROC, largest probability", lambda each: each.msp.auroc, ".2%"),
    ("AUROC, energy", lambda each: each.energy.auroc, ".2%"),
    ("FPR at 95 % recall, largest probability", lambda each: each.msp.fpr95, ".2%"),
    ("FPR at 95 % recall, energy", lambda each: each.energy.fpr95, ".2%"),
]

TRANSFER: list[Row[Transfer]] = [
    ("frozen, logistic regression", lambda each: None if each.frozen is None else each.frozen.logistic.accuracy, ".2%"),
    ("frozen, nearest neighbours", lambda each: None if each.frozen is None else each.frozen.knn.accuracy, ".2%"),
    (
        "authors' protocol, batch norms adapt",
        lambda each: None if each.authors is None else each.authors.accuracy,
        ".2%",
    ),
]


def database_rows(first: Sequence[DatabaseRetrieval]) -> list[Row[Sequence[DatabaseRetrieval]]]:
    """Those of retrieval of training images, by the metrics of the first network, which are those of all."""
    rows: list[Row[Sequence[DatabaseRetrieval]]] = []
    for place, each in enumerate(first):
        by = f"by {_METRICS[each.metric]}"
        rows += [
            (f"mean average precision of 11 points, {by}", _of_database(place, "map"), ".2%"),
            (f"  precision of the first {each.top}", _of_database(place, "precision"), ".2%"),
        ]
    return [*rows, ("share of relevant images", _of_database(0, "chance"), ".2%")]


def _of_database(place: int, name: str) -> Callable[[Sequence[DatabaseRetrieval]], float]:
    return lambda found: float(getattr(found[place], name))


def robustness_rows(found: Mapping[str, Robustness]) -> list[Row[Robustness]]:
    """Those of robustness: a row for each corruption and attack of the first network, which are those of all."""
    first = next(iter(found.values()))
    rows: list[Row[Robustness]] = [
        (f"accuracy on {first.count:,} images, unchanged", lambda each: each.clean, ".2%"),
        ("mean over corruptions and severities", lambda each: each.mean_corruption, ".2%"),
    ]
    for place, corrupted in enumerate(first.corruptions):
        name = corrupted.name.replace("_", " ")
        rows.append((f"  {name}", _corruption(place), ".2%"))
    for place, corrupted in enumerate(first.cifar_c or ()):
        rows.append((f"  CIFAR-C, {corrupted.name.replace('_', ' ')}", _cifar_c(place), ".2%"))
    for place, attacked in enumerate(first.attacks):
        name = f"{attacked.name.upper()}, {attacked.budget:g}/255"
        rows.append((name, _attack(place), ".2%"))
    return rows


def _corruption(place: int) -> Callable[[Robustness], float]:
    return lambda each: each.corruptions[place].mean


def _cifar_c(place: int) -> Callable[[Robustness], float | None]:
    return lambda each: None if each.cifar_c is None else each.cifar_c[place].mean


def _attack(place: int) -> Callable[[Robustness], float]:
    return lambda each: each.attacks[place].accuracy

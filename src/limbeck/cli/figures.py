"""An evaluation as tables for the terminal: a column for each network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich import box
from rich.table import Table

from limbeck.evaluate.calibration import Scaled
from limbeck.evaluate.classification import Classification
from limbeck.evaluate.cost import Cost, Costs, Ratios
from limbeck.evaluate.distribution import OutOfDistribution
from limbeck.evaluate.fidelity import Fidelity, LayerCka
from limbeck.evaluate.retrieval import Retrieval
from limbeck.evaluate.robustness import Robustness
from limbeck.evaluate.suite import Evaluation
from limbeck.evaluate.transfer import Transfer

T = TypeVar("T")
_Row = tuple[str, Callable[[T], float | None], str]
_MEBI = 2**20
_SHOWN = 5


def tables(evaluation: Evaluation) -> list[Table]:
    """The scores, then a table for each part that is there."""
    return [_scores(evaluation), *_by_network(evaluation), *_together(evaluation)]


def _scores(evaluation: Evaluation) -> Table:
    scores = {who: entry.score for who, entry in evaluation.networks.items()}
    count = next(iter(scores.values())).count
    table = _table(f"{evaluation.data}, {count:,} images of {evaluation.split}")
    for who, entry in evaluation.networks.items():
        table.add_column(f"{who}\n{entry.model}", justify="right", overflow="fold")
    _fill(
        table,
        scores,
        [
            ("accuracy", lambda score: score.accuracy, ".2%"),
            ("top-5 accuracy", lambda score: score.top5, ".2%"),
            ("negative log likelihood (nats)", lambda score: score.nll, ".4f"),
            ("agreement with the teacher", lambda score: score.agreement, ".2%"),
            ("KL(teacher ‖ student) (nats)", lambda score: score.kl, ".4f"),
        ],
    )
    table.add_row("parameters", *(f"{entry.parameters:,}" for entry in evaluation.networks.values()))
    return table


def _by_network(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.classification:
        yield _part("accuracy by class", evaluation.classification, _CLASSES)
        yield from (_classes(who, each) for who, each in evaluation.classification.items())
    if evaluation.calibration:
        bins = next(iter(evaluation.calibration.values())).raw.bins
        yield _part(f"calibration, {bins} bins", evaluation.calibration, _CALIBRATION)
    if evaluation.retrieval:
        yield _part("retrieval by cosine of embeddings", evaluation.retrieval, _RETRIEVAL)
    if evaluation.distribution:
        other = next(iter(evaluation.distribution.values())).other
        yield _part(f"out of distribution: {other}", evaluation.distribution, _DISTRIBUTION)
    if evaluation.robustness:
        yield _part(
            "robustness (limbeck's own corruptions)", evaluation.robustness, _robust_rows(evaluation.robustness)
        )
    if evaluation.transfer:
        yield _part(f"transfer to {evaluation.transfer_data}", evaluation.transfer, _TRANSFER)


def _together(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.fidelity:
        yield _fidelity(evaluation.fidelity)
    if evaluation.cost:
        yield _cost(evaluation.cost)


_CLASSES: list[_Row[Classification]] = [("mean over the classes", lambda each: each.balanced, ".2%")]

_CALIBRATION: list[_Row[Scaled]] = [
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

_RETRIEVAL: list[_Row[Retrieval]] = [
    ("mean average precision", lambda each: each.map, ".2%"),
    ("precision at 1", lambda each: each.precision_at_1, ".2%"),
    ("share of relevant images", lambda each: each.chance, ".2%"),
]

_DISTRIBUTION: list[_Row[OutOfDistribution]] = [
    ("AUROC, largest probability", lambda each: each.msp.auroc, ".2%"),
    ("AUROC, energy", lambda each: each.energy.auroc, ".2%"),
    ("FPR at 95 % recall, largest probability", lambda each: each.msp.fpr95, ".2%"),
    ("FPR at 95 % recall, energy", lambda each: each.energy.fpr95, ".2%"),
]

_TRANSFER: list[_Row[Transfer]] = [
    ("frozen, logistic regression", lambda each: None if each.frozen is None else each.frozen.logistic.accuracy, ".2%"),
    ("frozen, nearest neighbours", lambda each: None if each.frozen is None else each.frozen.knn.accuracy, ".2%"),
    (
        "authors' protocol, batch norms adapt",
        lambda each: None if each.authors is None else each.authors.accuracy,
        ".2%",
    ),
]


def _robust_rows(found: Mapping[str, Robustness]) -> list[_Row[Robustness]]:
    first = next(iter(found.values()))
    rows: list[_Row[Robustness]] = [
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


def _classes(who: str, found: Classification) -> Table:
    table = _table(f"{who}: hardest classes")
    table.add_column("accuracy", justify="right")
    table.add_column("most often taken for")
    known = [(each.accuracy, each.name) for each in found.classes if each.accuracy is not None]
    for accuracy, name in sorted(known)[:_SHOWN]:
        taken = [f"{each.prediction} ({each.count})" for each in found.confused if each.label == name]
        table.add_row(name, f"{accuracy:.2%}", ", ".join(taken[:3]))
    return table


def _fidelity(found: Mapping[str, Fidelity]) -> Table:
    table = _table("against the teacher")
    for who in found:
        table.add_column(who, justify="right")
    counts = [(each.kept, each.lost, each.gained, each.both_wrong) for each in found.values()]
    right = [" / ".join(f"{count:,}" for count in each) for each in counts]
    table.add_row("right: both / teacher alone / student alone / none", *right)
    # In a dictionary, since students may have other stages, whose rows then stay empty for the others.
    names = list(dict.fromkeys(row for each in found.values() for row in _fidelity_rows(each)))
    told = {who: _fidelity_rows(each) for who, each in found.items()}
    for name in names:
        table.add_row(name, *(rows.get(name, "") for rows in told.values()))
    return table


def _fidelity_rows(found: Fidelity) -> dict[str, str]:
    """What a student kept, each figure in words by its name; without those that it has not."""
    rows: list[tuple[str, float | None, str]] = [
        ("accuracy kept", found.retention, ".2%"),
        ("agreement where the teacher is wrong", found.agreement_where_wrong, ".2%"),
        ("KL(student ‖ teacher) (nats)", found.reverse_kl, ".4f"),
        ("correlation difference, all samples", found.correlation.mean, ".4f"),
        ("  as the authors' 2024 code", found.correlation_paper_2024.mean, ".4f"),
        ("  as the authors' 2025 code", found.correlation_paper_2025.mean, ".4f"),
        ("linear CKA of embeddings", found.cka_embedding, ".4f"),
        *((f"  {each.student}, closest to {each.teacher}", each.cka, ".4f") for each in _closest(found.cka_stages)),
    ]
    for what, each in (("logits", found.consistency_logits), ("embeddings", found.consistency_embedding)):
        if each is not None:
            rows += [
                (f"ICD's invariance of {what} (nats)", each.invariance, ".4f"),
                (f"  asymmetry of similarities of {what}", each.asymmetry, ".4f"),
                (f"  own teacher's {what} most similar, of {each.batch}", each.own_teacher, ".2%"),
            ]
    return {name: format(value, form) for name, value, form in rows if value is not None}


def _closest(pairs: Sequence[LayerCka]) -> list[LayerCka]:
    """For each stage of the student the pair with the teacher's stage that is most like it."""
    best: dict[str, LayerCka] = {}
    for pair in pairs:
        known = best.get(pair.student)
        if known is None or (pair.cka or 0.0) > (known.cka or 0.0):
            best[pair.student] = pair
    return list(best.values())


def _cost(found: Costs) -> Table:
    table = _table(f"cost on {found.device}")
    ratios = found.ratios or {}
    for who in found.networks:
        table.add_column(who, justify="right")
        if who in ratios:
            table.add_column("teacher ÷ it", justify="right")
    rows: list[tuple[str, Callable[[Cost], str], Callable[[Ratios], float | None]]] = [
        ("parameters", lambda each: f"{each.parameters:,}", lambda ratios: ratios.parameters),
        ("multiply-accumulates of an image", lambda each: f"{each.macs:,}", lambda ratios: ratios.macs),
        ("weights (MiB)", lambda each: f"{each.bytes / _MEBI:.3f}", lambda ratios: ratios.bytes),
        (
            "memory of a batch (MiB)",
            lambda each: f"{each.memory_bytes / _MEBI:.2f}",
            lambda ratios: ratios.memory_bytes,
        ),
    ]
    for place, latency in enumerate(next(iter(found.networks.values())).latency):
        rows.append((f"ms for {latency.batch} (quartiles)", _spread(place), _latency_ratio(place)))
    for name, read, compare in rows:
        cells: list[str] = []
        for who, each in found.networks.items():
            ratio = compare(ratios[who]) if who in ratios else None
            cells += [read(each), *([_ratio(ratio)] if who in ratios else [])]
        table.add_row(name, *cells)
    return table


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _latency_ratio(place: int) -> Callable[[Ratios], float | None]:
    return lambda ratios: ratios.latency[place]


def _spread(place: int) -> Callable[[Cost], str]:
    def shown(cost: Cost) -> str:
        latency = cost.latency[place]
        return f"{latency.median_ms:.3g} ({latency.low_ms:.3g} to {latency.high_ms:.3g})"

    return shown


def _part(title: str, found: Mapping[str, T], rows: Sequence[_Row[T]]) -> Table:
    table = _table(title)
    for who in found:
        table.add_column(who, justify="right")
    _fill(table, found, rows)
    return table


def _fill(table: Table, found: Mapping[str, T], rows: Sequence[_Row[T]]) -> None:
    for name, read, form in rows:
        values = [read(each) for each in found.values()]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else format(value, form) for value in values))


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title)
    return table

"""An evaluation as tables for the terminal: a column for each network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich import box
from rich.markup import escape
from rich.table import Table

from limbeck.cli.figure_rows import (
    CALIBRATION,
    CLASSES,
    DISTRIBUTION,
    RETRIEVAL,
    SCORES,
    TRANSFER,
    Row,
    database_rows,
    robustness_rows,
)
from limbeck.cli.text_rows import (
    ANSWERS,
    FOLLOWED,
    SEARCH,
    SEARCH_SCORES,
    TOKEN_SCORES,
    TOKENS,
    index_rows,
    task_rows,
    writing_rows,
)
from limbeck.evaluate.bench import TEACHER
from limbeck.evaluate.classification import Classification
from limbeck.evaluate.cost import Cost, Costs, Ratios
from limbeck.evaluate.fidelity import Fidelity, LayerCka
from limbeck.evaluate.record import Entry, Evaluation

T = TypeVar("T")
_SCORES = {"images": SCORES, "classification": SCORES, "language": TOKEN_SCORES, "search": SEARCH_SCORES}
_MEBI = 2**20
_SHOWN = 5
_TAKEN = 3
# More columns than these cannot be read in a terminal.
_ACROSS = 6


def tables(evaluation: Evaluation) -> list[Table]:
    """The scores, then what each part that is there found: a table for every six networks, the teacher in each."""
    scores = [_scores(evaluation, some) for some in _across(evaluation.networks)]
    return [*scores, *_by_network(evaluation), *_together(evaluation)]


def _across(found: Mapping[str, T], most: int = _ACROSS) -> Iterator[dict[str, T]]:
    if len(found) <= most:
        yield dict(found)
        return
    beside = {TEACHER: found[TEACHER]} if TEACHER in found else {}
    others, step = [who for who in found if who not in beside], most - len(beside)
    for first in range(0, len(others), step):
        yield {who: found[who] for who in others[first : first + step]} | beside


def _scores(evaluation: Evaluation, networks: Mapping[str, Entry]) -> Table:
    count = next(iter(networks.values())).count
    table = _table(f"{evaluation.data}, {count:,} {evaluation.samples} of {evaluation.split}")
    for who, entry in networks.items():
        table.add_column(escape(f"{who}\n{entry.model}"), justify="right", overflow="fold")
    _fill(table, networks, _SCORES[evaluation.kind])
    if evaluation.tokens:
        _fill(table, {who: evaluation.tokens[who] for who in networks}, TOKENS)
    if evaluation.search:
        _fill(table, {who: evaluation.search[who] for who in networks}, SEARCH)
    table.add_row("parameters", *(f"{entry.parameters:,}" for entry in networks.values()))
    return table


def _by_network(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.classification:
        yield from _part("accuracy by class", evaluation.classification, CLASSES)
        yield from (_classes(who, each) for who, each in evaluation.classification.items())
    if evaluation.calibration:
        bins = next(iter(evaluation.calibration.values())).raw.bins
        yield from _part(f"calibration, {bins} bins", evaluation.calibration, CALIBRATION)
    if evaluation.retrieval:
        yield from _part("retrieval by cosine of embeddings", evaluation.retrieval, RETRIEVAL)
    if evaluation.database:
        first = next(iter(evaluation.database.values()))
        title = f"retrieval of {first[0].database:,} training images"
        yield from _part(title, evaluation.database, database_rows(first))
    if evaluation.distribution:
        other = next(iter(evaluation.distribution.values())).other
        yield from _part(f"out of distribution: {other}", evaluation.distribution, DISTRIBUTION)
    if evaluation.robustness:
        yield from _part(
            "robustness (limbeck's own corruptions)", evaluation.robustness, robustness_rows(evaluation.robustness)
        )
    if evaluation.transfer:
        yield from _part(f"transfer to {evaluation.transfer_data}", evaluation.transfer, TRANSFER)


def _together(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.fidelity:
        yield from map(_fidelity, _across(evaluation.fidelity))
    if evaluation.answers:
        count = next(iter(evaluation.answers.networks.values())).count
        title = f"greedy answers to {count:,} prompts (answer: {evaluation.answers.extraction})"
        yield from _part(title, evaluation.answers.networks, ANSWERS)
    if evaluation.tasks:
        yield from _part("tasks of lm-eval", evaluation.tasks, task_rows(evaluation.tasks))
    if evaluation.followed:
        depth = next(iter(evaluation.followed.values())).depth
        yield from _part(f"against the teacher, the first {depth} documents", evaluation.followed, FOLLOWED)
    if evaluation.cost:
        # Students have two columns each.
        for some in _across(evaluation.cost.networks, _ACROSS // 2 + 1):
            yield _cost(evaluation.cost, some)
    if evaluation.writing:
        first = next(iter(evaluation.writing.networks.values()))
        yield from _part(f"writing on {evaluation.writing.device}", *writing_rows(evaluation.writing, first))
    if evaluation.index:
        yield from _part(f"search on {evaluation.index.device}", *index_rows(evaluation.index))


def _classes(who: str, found: Classification) -> Table:
    table = _table(f"{who}: hardest classes")
    taken = _taken(found)
    table.add_column("accuracy", justify="right")
    table.add_column("most often taken for")
    known = [(each.accuracy, number) for number, each in enumerate(found.classes) if each.accuracy is not None]
    for accuracy, number in sorted(known)[:_SHOWN]:
        mistakes = sorted(taken.get(number, ()), key=lambda each: -each[1])[:_TAKEN]
        words = ", ".join(f"{found.classes[other].name} ({count})" for other, count in mistakes)
        table.add_row(escape(found.classes[number].name), f"{accuracy:.2%}", escape(words))
    return table


def _taken(found: Classification) -> dict[int, list[tuple[int, int]]]:
    """By class: which others it was taken for, and how often; from the counts, since the list of mistakes has the top ones."""
    counts = found.confusion
    if found.is_whole:
        counts = tuple((row, column, count) for row, cells in enumerate(counts) for column, count in enumerate(cells))
    taken: dict[int, list[tuple[int, int]]] = {}
    for label, other, count in counts:
        if count and other != label:
            taken.setdefault(label, []).append((other, count))
    return taken


def _fidelity(found: Mapping[str, Fidelity]) -> Table:
    table = _table("against the teacher", found)
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


def _cost(found: Costs, networks: Mapping[str, Cost]) -> Table:
    table = _table(f"cost on {found.device}")
    ratios = found.ratios or {}
    for who in networks:
        table.add_column(escape(who), justify="right")
        if who in ratios:
            table.add_column("teacher ÷ it", justify="right")
    rows: list[tuple[str, Callable[[Cost], str], Callable[[Ratios], float | None]]] = [
        ("parameters", lambda each: f"{each.parameters:,}", lambda ratios: ratios.parameters),
        ("multiply-accumulates of one", lambda each: f"{each.macs:,}", lambda ratios: ratios.macs),
        ("weights (MiB)", lambda each: f"{each.bytes / _MEBI:.3f}", lambda ratios: ratios.bytes),
        (
            "memory of a batch (MiB)",
            lambda each: f"{each.memory_bytes / _MEBI:.2f}",
            lambda ratios: ratios.memory_bytes,
        ),
    ]
    if len(next(iter(networks.values())).input) == 1:
        rows.insert(0, ("tokens of the text", lambda each: f"{each.input[0]:,}", lambda ratios: None))
        rows.append(("tokens/s read", _reading, lambda ratios: None))
    for place, latency in enumerate(next(iter(networks.values())).latency):
        rows.append((f"ms for {latency.batch} (quartiles)", _spread(place), _latency_ratio(place)))
    for name, read, compare in rows:
        cells: list[str] = []
        for who, each in networks.items():
            ratio = compare(ratios[who]) if who in ratios else None
            cells += [read(each), *([_ratio(ratio)] if who in ratios else [])]
        table.add_row(name, *cells)
    return table


def _reading(cost: Cost) -> str:
    """Tokens a second of a pass over whole texts, in the larger batch."""
    return f"{cost.input[0] * cost.latency[-1].images_per_second:,.0f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _latency_ratio(place: int) -> Callable[[Ratios], float | None]:
    return lambda ratios: ratios.latency[place]


def _spread(place: int) -> Callable[[Cost], str]:
    def shown(cost: Cost) -> str:
        latency = cost.latency[place]
        return f"{latency.median_ms:.3g} ({latency.low_ms:.3g} to {latency.high_ms:.3g})"

    return shown


def _part(title: str, found: Mapping[str, T], rows: Sequence[Row[T]]) -> Iterator[Table]:
    for some in _across(found):
        table = _table(title, some)
        _fill(table, some, rows)
        yield table


def _fill(table: Table, found: Mapping[str, T], rows: Sequence[Row[T]]) -> None:
    for name, read, form in rows:
        values = [read(each) for each in found.values()]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else format(value, form) for value in values))


def _table(title: str, columns: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(escape(title))
    for who in columns:
        table.add_column(escape(who), justify="right", overflow="fold")
    return table

"""All figures of one evaluation, and the file that holds them: what ``limbeck evaluate`` writes is what the report reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from limbeck.evaluate.calibration import Scaled
from limbeck.evaluate.classification import Classification
from limbeck.evaluate.cost import Costs
from limbeck.evaluate.database import DatabaseRetrieval
from limbeck.evaluate.distribution import OutOfDistribution
from limbeck.evaluate.embedding_map import EmbeddingMap
from limbeck.evaluate.examples import Example
from limbeck.evaluate.fidelity import Fidelity
from limbeck.evaluate.kinds import Count, Number, Share
from limbeck.evaluate.retrieval import Retrieval
from limbeck.evaluate.robustness import Robustness
from limbeck.evaluate.search.figures import Followed, IndexCosts, MissedQuery, SearchFigures
from limbeck.evaluate.tasks import TaskFigure
from limbeck.evaluate.text.figures import Answered, TokenFigures, WritingCosts
from limbeck.evaluate.transfer import Transfer
from limbeck.files import atomic_path

SCHEMA = 3
_READ = (2, SCHEMA)
"""Schema 2 knew images alone; what it has is as it was."""

Kind = Literal["images", "classification", "language", "search"]
"""What networks were evaluated on: images, texts with classes, text whose next token is told, or a collection."""
SAMPLES: Mapping[Kind, str] = {
    "images": "images",
    "classification": "texts",
    "language": "tokens",
    "search": "queries",
}
"""What is counted of each kind."""
_QUALITY: Mapping[Kind, str] = {
    "images": "accuracy",
    "classification": "accuracy",
    "language": "token accuracy",
    "search": "nDCG@10",
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How often a network is right, over ``count`` samples: images, texts, tokens, or queries.

    accuracy, top5: shares in [0, 1] for which the right class comes first, or is among the first five; of tokens, the next
    token, without top5; of queries, those for which a relevant document does. nll: mean negative log likelihood in nats; None
    of queries. agreement: with a teacher the share for which it says the same first (of queries the same document). kl: the
    mean KL(teacher ‖ student) in nats; None of queries.
    """

    count: Count
    accuracy: Share
    top5: Share | None = None
    nll: Number | None = None
    agreement: Share | None = None
    kl: Number | None = None


@dataclass(frozen=True, kw_only=True)
class Entry(Scored):
    """One network of an evaluation: its scores, its role, what it is, and how it was taught where that is known."""

    role: Literal["teacher", "student"]
    model: str
    method: str | None
    parameters: Count


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All figures. Parts that were not asked for, or are of other kinds of data, are None; the others have one entry for each
    network, by its name.

    fidelity, followed, missed, examples and the ratios of costs have one for each student. failures: parts that could not be
    done, and why. remarks: what could not be told, and why. command, versions, when: how, with what and when it was made.
    """

    data: str
    split: str
    kind: Kind = "images"
    classes: tuple[str, ...]
    networks: Annotated[Mapping[str, Entry], Field(min_length=1)]
    classification: Mapping[str, Classification] | None = None
    calibration: Mapping[str, Scaled] | None = None
    fidelity: Mapping[str, Fidelity] | None = None
    retrieval: Mapping[str, Retrieval] | None = None
    database: Mapping[str, Annotated[tuple[DatabaseRetrieval, ...], Field(min_length=1)]] | None = None
    distribution: Mapping[str, OutOfDistribution] | None = None
    robustness: Mapping[str, Robustness] | None = None
    transfer: Mapping[str, Transfer] | None = None
    transfer_data: str | None = None
    cost: Costs | None = None
    examples: Mapping[str, tuple[Example, ...]] | None = None
    embedding_map: EmbeddingMap | None = None
    tokens: Mapping[str, TokenFigures] | None = None
    answers: Answered | None = None
    writing: WritingCosts | None = None
    tasks: Mapping[str, tuple[TaskFigure, ...]] | None = None
    search: Mapping[str, SearchFigures] | None = None
    followed: Mapping[str, Followed] | None = None
    missed: Mapping[str, tuple[MissedQuery, ...]] | None = None
    index: IndexCosts | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    command: str
    versions: Mapping[str, str]
    when: str

    @property
    def teacher(self) -> str | None:
        """The teacher's name, if there is one."""
        return next((who for who, entry in self.networks.items() if entry.role == "teacher"), None)

    @property
    def samples(self) -> str:
        """What was counted, in the plural."""
        return SAMPLES[self.kind]

    @property
    def quality_name(self) -> str:
        """The figure that a network is judged by where there is room for one."""
        return _QUALITY[self.kind]

    def quality(self, who: str) -> float:
        """That figure of a network, in [0, 1]."""
        searched = (self.search or {}).get(who)
        return self.networks[who].accuracy if searched is None else searched.ndcg_10

    @property
    def students(self) -> list[str]:
        """The students' names in their order."""
        return [who for who, entry in self.networks.items() if entry.role == "student"]

    def as_dict(self) -> dict[str, Any]:
        """Numbers, text, lists and mappings alone, the same keys whatever was asked for."""
        return {"schema": SCHEMA} | asdict(self)

    def write(self, path: Path) -> None:
        """Write the figures as JSON, in the place of another evaluation if there is one."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), ensure_ascii=False) + "\n", encoding="utf-8")


_VALUES = TypeAdapter(dict[str, Any])
_EVALUATION = TypeAdapter(Evaluation)


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation that :meth:`Evaluation.write` wrote to a file; keys that a later limbeck adds are passed over.

    Raises:
        ValueError: in a sentence: it cannot be read, is damaged, of another schema, or its values do not fit each other.
    """
    try:
        content = path.read_bytes()
        values = _VALUES.validate_json(content)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise ValueError(f"{path.name} is damaged: {_first(error)}") from None
    if values.get("schema") not in _READ:
        given = values.get("schema")
        found = f"schema {given!r}" if isinstance(given, int | str) else "no schema"
        raise ValueError(f"{path.name} has {found:.40}; evaluations of schema {SCHEMA} are read. Evaluate once more")
    try:
        # From the text, since lists stand for tuples there while numbers in quotes stay wrong.
        evaluation = _EVALUATION.validate_json(content, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path.name} is no evaluation: {_first(error)}") from None
    for problem in _misfits(evaluation):
        raise ValueError(f"{path.name} is no evaluation: {problem}")
    return evaluation


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part)[:40] for part in first["loc"]) or "the whole"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _misfits(evaluation: Evaluation) -> Iterator[str]:
    """What each value by itself does not show."""
    if sum(entry.role == "teacher" for entry in evaluation.networks.values()) > 1:
        yield "it has more than one teacher"
    for part, names in _named(evaluation):
        for who in names:
            if who not in evaluation.networks:
                yield f"{part}: there is no network '{who:.40}'"
    classes = len(evaluation.classes)
    if not classes and evaluation.kind in ("images", "classification"):
        yield "it has no classes"
    for who, classification in (evaluation.classification or {}).items():
        if len(classification.classes) != classes:
            yield f"classification.{who:.40}: it has {len(classification.classes)} classes, the data {classes}"
    if len({tuple((each.metric, each.top) for each in found) for found in (evaluation.database or {}).values()}) > 1:
        yield "database: the networks have other metrics than each other"
    if evaluation.writing is not None:
        sizes = {tuple(each.batch for each in found) for found in evaluation.writing.networks.values()}
        if len(sizes) > 1:
            yield "writing: the networks have other batches than each other"
    for who, fidelity in (evaluation.fidelity or {}).items():
        matrix = fidelity.correlation.matrix
        if matrix is not None and {len(matrix), *map(len, matrix)} != {classes}:
            yield f"fidelity.{who:.40}: the matrix is not {classes} by {classes}"
    if evaluation.embedding_map is not None:
        yield from _map_misfits(evaluation.embedding_map)


def _named(evaluation: Evaluation) -> Iterator[tuple[str, Iterable[str]]]:
    parts: dict[str, Mapping[str, object] | None] = {
        name: getattr(evaluation, name)
        for name in (
            *("classification", "calibration", "fidelity", "retrieval", "database"),
            *("distribution", "robustness", "transfer", "examples", "tokens", "tasks", "search", "followed", "missed"),
        )
    }
    for name in ("cost", "writing", "index"):
        costs = getattr(evaluation, name)
        if costs is not None:
            parts |= {name: costs.networks, f"{name}.ratios": costs.ratios}
    if evaluation.answers is not None:
        parts["answers"] = evaluation.answers.networks
        parts["answers.samples"] = dict.fromkeys(who for each in evaluation.answers.samples for who in each.given)
    if evaluation.embedding_map is not None:
        parts["embedding_map"] = evaluation.embedding_map.networks
    yield from ((name, part or {}) for name, part in parts.items())


def _map_misfits(found: EmbeddingMap) -> Iterator[str]:
    if found.labels and max(found.labels) >= len(found.classes):
        yield f"embedding_map: label {max(found.labels)} is not among its {len(found.classes)} classes"
    for who, points in found.networks.items():
        if len(points) != len(found.labels):
            yield f"embedding_map.{who:.40}: it has {len(points)} points for {len(found.labels)} labels"

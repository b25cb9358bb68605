"""An evaluation record: the JSON that ``limbeck evaluate`` writes, checked before anything is drawn from it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.functional_validators import AfterValidator

SCHEMA = 2

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_IMAGE = 1 << 20


def _png(text: str) -> str:
    """Base64 of a PNG and nothing else, since it is written into the page."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if not content.startswith(_PNG):
        raise ValueError("it is no PNG")
    return text


# Not a number, and infinity, are no figures to draw; nor are those whose square is infinite.
_LARGEST = 1e15
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
# A mean of ones may be a rounding above one.
Share = Annotated[
    float, Field(ge=-1e-6, le=1 + 1e-6, allow_inf_nan=False), AfterValidator(lambda value: min(1.0, max(0.0, value)))
]
Positive = Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Side = Annotated[int, Field(ge=1, le=4096)]
Png = Annotated[str, Field(max_length=_LARGEST_IMAGE), AfterValidator(_png)]
Matrix = tuple[tuple[Number, ...], ...]


@dataclass(frozen=True)
class Network:
    """One network and its scores; agreement and kl are a student's with its teacher."""

    role: Literal["teacher", "student"]
    model: str
    parameters: Count
    count: Count
    accuracy: Share
    top5: Share
    nll: Number
    method: str | None = None
    agreement: Share | None = None
    kl: Number | None = None


@dataclass(frozen=True)
class ClassAccuracy:
    """The share of a class's ``count`` images that are told; None where there is no image."""

    name: str
    count: Count
    accuracy: Share | None


@dataclass(frozen=True)
class Confusion:
    """How many images of class ``label`` were taken for ``prediction``."""

    label: str
    prediction: str
    count: Count


@dataclass(frozen=True)
class Classification:
    """Accuracy by class, in the order of the labels; balanced: mean of the classes that have images.

    confused: the most frequent mistakes, the most frequent first.
    """

    classes: tuple[ClassAccuracy, ...]
    balanced: Share | None = None
    confused: tuple[Confusion, ...] = ()


@dataclass(frozen=True)
class Bin:
    """Predictions of a confidence in (low, high]."""

    low: Share
    high: Share
    count: Count
    confidence: Share | None
    accuracy: Share | None


@dataclass(frozen=True)
class Calibration:
    """Figures of probabilities, with the bins of equal width."""

    nll: Number
    brier: Number
    ece: Share
    mce: Share
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Scaled:
    """Calibration before and after temperature scaling."""

    raw: Calibration
    temperature: Positive | None = None
    fitted_on: Count | None = None
    scaled: Calibration | None = None


@dataclass(frozen=True)
class MatrixDifference:
    """Mean and maximum of absolute differences; matrix: (C, C) differences, where they were kept."""

    procedure: str
    mean: Number
    maximum: Number
    matrix: Matrix | None = None


@dataclass(frozen=True)
class Consistency:
    """How symmetric the matrix of similarities between student and teacher is."""

    asymmetry: Number
    invariance: Number
    own_teacher: Share


@dataclass(frozen=True)
class StageCka:
    """Linear CKA of a student's stage and a teacher's, with and without the bias of few samples; None where there is none."""

    student: str
    teacher: str
    cka: Number | None
    debiased: Number | None


@dataclass(frozen=True)
class Fidelity:
    """A student against its teacher."""

    count: Count
    agreement: Share
    kl: Number
    reverse_kl: Number
    kept: Count
    lost: Count
    gained: Count
    both_wrong: Count
    correlation_paper_2024: MatrixDifference
    correlation_paper_2025: MatrixDifference
    correlation: MatrixDifference
    agreement_where_wrong: Share | None = None
    retention: Number | None = None
    cka_embedding: Number | None = None
    cka_embedding_debiased: Number | None = None
    cka_stages: tuple[StageCka, ...] = ()
    consistency_logits: Consistency | None = None
    consistency_embedding: Consistency | None = None


@dataclass(frozen=True)
class Retrieval:
    """Every image a query among the others."""

    queries: Count
    map: Share
    precision_at_1: Share
    chance: Share


@dataclass(frozen=True)
class Detection:
    """How well a score tells the data from other images."""

    auroc: Share
    fpr95: Share


@dataclass(frozen=True)
class OutOfDistribution:
    """Detection of other images by two scores."""

    other: str
    inside: Count
    outside: Count
    msp: Detection
    energy: Detection


@dataclass(frozen=True)
class Corrupted:
    """Accuracy under one corruption, at each severity from 1 on."""

    name: str
    mean: Share
    severities: Annotated[tuple[Share, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Attacked:
    """Accuracy under an attack of a budget in units of 1/255."""

    name: str
    budget: Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]
    steps: Count
    accuracy: Share


@dataclass(frozen=True)
class Robustness:
    """Accuracies under corruptions and attacks; cifar_c: on the published files, where they were given."""

    count: Count
    clean: Share
    mean_corruption: Share
    corruptions: tuple[Corrupted, ...]
    attacks: tuple[Attacked, ...]
    relative: Number | None = None
    cifar_c: tuple[Corrupted, ...] | None = None


@dataclass(frozen=True)
class Probe:
    """Accuracy of a classifier on embeddings, and the setting that was chosen for it."""

    accuracy: Share
    setting: Number


@dataclass(frozen=True)
class FrozenProbe:
    """A frozen network's embeddings of other data under two classifiers."""

    train: Count
    validation: Count
    test: Count
    logistic: Probe
    knn: Probe


@dataclass(frozen=True)
class AuthorsProbe:
    """The protocol of ICD's authors, whose batch norms adapt."""

    epochs: Count
    accuracy: Share


@dataclass(frozen=True)
class Transfer:
    """Transfer to other data by the protocols that were asked for."""

    frozen: FrozenProbe | None = None
    authors: AuthorsProbe | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass of ``batch`` images: median and quartiles."""

    batch: Count
    median_ms: Positive
    low_ms: Positive
    high_ms: Positive
    images_per_second: Positive


@dataclass(frozen=True)
class Cost:
    """What a network costs on one image."""

    input: tuple[Count, ...]
    parameters: Count
    macs: Count
    bytes: Count
    latency: tuple[Latency, ...]
    memory_bytes: Count
    file_bytes: Count | None = None


@dataclass(frozen=True)
class Ratios:
    """The teacher's figure over the student's; latency: in the order of the batch sizes."""

    parameters: Positive | None = None
    macs: Positive | None = None
    bytes: Positive | None = None
    latency: tuple[Positive, ...] = ()
    memory_bytes: Positive | None = None


@dataclass(frozen=True)
class Costs:
    """Costs of the networks on one device, and the ratios of each student."""

    device: str
    networks: dict[str, Cost]
    ratios: dict[str, Ratios] | None = None


@dataclass(frozen=True)
class Example:
    """An image that the teacher gets right and a student wrong, as base64 of a PNG."""

    index: Count
    label: str
    student: str
    teacher: str
    student_confidence: Share
    teacher_confidence: Share
    width: Side
    height: Side
    png: Png


@dataclass(frozen=True)
class EmbeddingMap:
    """Embeddings of the same images in the plane, a map a network; labels are places in ``classes``."""

    method: str
    classes: tuple[str, ...]
    labels: tuple[Count, ...]
    networks: dict[str, tuple[tuple[Number, Number], ...]]
    perplexity: Positive | None = None
    trustworthiness: dict[str, Share | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What one evaluation found; a part that was not asked for, or failed, is None. Networks go by short names."""

    schema: Literal[2]
    data: str
    split: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    command: str
    networks: Annotated[dict[str, Network], Field(min_length=1)]
    versions: dict[str, str]
    when: str
    classification: dict[str, Classification] | None = None
    calibration: dict[str, Scaled] | None = None
    fidelity: dict[str, Fidelity] | None = None
    retrieval: dict[str, Retrieval] | None = None
    distribution: dict[str, OutOfDistribution] | None = None
    robustness: dict[str, Robustness] | None = None
    transfer: dict[str, Transfer] | None = None
    transfer_data: str | None = None
    cost: Costs | None = None
    examples: dict[str, tuple[Example, ...]] | None = None
    embedding_map: EmbeddingMap | None = None
    failures: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def teacher(self) -> str | None:
        """The teacher's name, if there is one."""
        return next((who for who, network in self.networks.items() if network.role == "teacher"), None)

    @property
    def students(self) -> list[str]:
        """The students' names in their order."""
        return [who for who, network in self.networks.items() if network.role == "student"]


@dataclass(frozen=True)
class Evaluated:
    """A record and where it was read."""

    path: Path
    record: Record


_VALUES = TypeAdapter(dict[str, Any])
_RECORD = TypeAdapter(Record)


def read_evaluation(path: Path) -> Evaluated:
    """The evaluation record in a file.

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
    if values.get("schema") != SCHEMA:
        given = values.get("schema")
        found = f"schema {given!r}" if isinstance(given, int | str) else "no schema"
        raise ValueError(f"{path.name} has {found:.40}; evaluations of schema {SCHEMA} are read. Evaluate once more")
    try:
        # From the text, since lists stand for tuples there while numbers in quotes stay wrong.
        record = _RECORD.validate_json(content, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path.name} is no evaluation: {_first(error)}") from None
    for problem in _misfits(record):
        raise ValueError(f"{path.name} is no evaluation: {problem}")
    return Evaluated(path, record)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part)[:40] for part in first["loc"]) or "the whole"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _misfits(record: Record) -> Iterator[str]:
    """What each value by itself does not show."""
    if sum(network.role == "teacher" for network in record.networks.values()) > 1:
        yield "it has more than one teacher"
    for part, names in _named(record):
        for who in names:
            if who not in record.networks:
                yield f"{part}: there is no network '{who:.40}'"
    classes = len(record.classes)
    for who, classification in (record.classification or {}).items():
        if len(classification.classes) != classes:
            yield f"classification.{who:.40}: it has {len(classification.classes)} classes, the data {classes}"
    for who, fidelity in (record.fidelity or {}).items():
        matrix = fidelity.correlation.matrix
        if matrix is not None and {len(matrix), *map(len, matrix)} != {classes}:
            yield f"fidelity.{who:.40}: the matrix is not {classes} by {classes}"
    if record.embedding_map is not None:
        yield from _map_misfits(record.embedding_map)


def _named(record: Record) -> Iterator[tuple[str, Iterable[str]]]:
    parts: dict[str, Mapping[str, object] | None] = {
        name: getattr(record, name)
        for name in ("classification", "calibration", "fidelity", "retrieval", "distribution", "robustness", "transfer")
    }
    parts["examples"] = record.examples
    if record.cost is not None:
        parts |= {"cost": record.cost.networks, "cost.ratios": record.cost.ratios}
    if record.embedding_map is not None:
        parts["embedding_map"] = record.embedding_map.networks
    yield from ((name, part or {}) for name, part in parts.items())


def _map_misfits(found: EmbeddingMap) -> Iterator[str]:
    if found.labels and max(found.labels) >= len(found.classes):
        yield f"embedding_map: label {max(found.labels)} is not among its {len(found.classes)} classes"
    for who, points in found.networks.items():
        if len(points) != len(found.labels):
            yield f"embedding_map.{who:.40}: it has {len(points)} points for {len(found.labels)} labels"

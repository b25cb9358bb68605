"""The parts of an evaluation by name: each takes the bench and adds its figures to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from limbeck.data import ImageData
from limbeck.errors import DataError, SettingError, unknown_name
from limbeck.evaluate.answers import answer
from limbeck.evaluate.bench import NOISE, TEACHER, ClassBench, Figures, Options
from limbeck.evaluate.calibration import scaled_calibration
from limbeck.evaluate.cifar_c import cifar_c
from limbeck.evaluate.classification import classification
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.database import METRICS, DatabaseRetrieval, database_retrieval
from limbeck.evaluate.embedding_map import embedding_map
from limbeck.evaluate.examples import examples
from limbeck.evaluate.fidelity import fidelity
from limbeck.evaluate.image_bench import ImageBench, split_of
from limbeck.evaluate.other_data import out_of_distribution_part, transfer_part
from limbeck.evaluate.record import SAMPLES, Kind
from limbeck.evaluate.retrieval import retrieval
from limbeck.evaluate.robustness import Answer, robustness
from limbeck.evaluate.search_parts import followed_part, missed_part
from limbeck.evaluate.tasks import check_tasks
from limbeck.evaluate.text_parts import answers_part, tasks_part
from limbeck.networks import Network

COST = "cost"
"""A part that every kind of data has, measured before the networks are tapped."""
_KINDS: Mapping[Kind, str] = {
    "images": "images",
    "classification": "text with classes",
    "language": "text for language models",
    "search": "a collection for search",
}


@dataclass(frozen=True)
class Part:
    """A part: what it does with the bench of its kind of data (None where the bench does it by itself), and what it needs.

    check: refuses options before anything is done.
    named_alone: whether it is no part of "all": it is done only where it, or the data for it, is named.
    """

    run: Callable[[Any], Figures] | None = None
    check: Callable[[Options], None] | None = None
    with_teacher: bool = False
    with_embedding: bool = False
    named_alone: bool = False


def _classification(bench: ClassBench) -> Figures:
    return {"classification": {who: classification(g, bench.classes) for who, g in bench.gathered().items()}}


def _calibration(bench: ClassBench) -> Figures:
    reason = _no_validation(bench)
    if reason:
        bench.say(f"temperature scaling is left out: {reason}.")
    validation = {} if reason else bench.gathered("validation")
    return {
        "calibration": {
            who: scaled_calibration(
                each.logits, each.labels, (validation[who].logits, validation[who].labels) if validation else None
            )
            for who, each in bench.gathered().items()
        }
    }


def _no_validation(bench: ClassBench) -> str:
    """Why nothing can be fitted on a validation split; empty where it can."""
    if not bench.has("validation"):
        return f"{bench.name} has no validation split to fit it on"
    return "the validation split, on which it is fitted, is the one evaluated" * (bench.split == "validation")


def _fidelity(bench: ClassBench) -> Figures:
    if TEACHER not in bench.networks:
        bench.say("fidelity is left out: it needs a teacher.")
        return {}
    here = bench.gathered()
    other = None if _no_validation(bench) else bench.gathered("validation")
    return {
        "fidelity": {
            who: fidelity(
                here[who],
                here[TEACHER],
                fit=None if other is None else (other[who], other[TEACHER]),
                fit_name="the validation split",
                samples=SAMPLES[bench.kind],
            )
            for who in bench.students
        }
    }


def _retrieval(bench: ClassBench) -> Figures:
    found = {}
    for who, each in bench.gathered().items():
        if each.embedding is None:
            continue  # the reason was said when the network was tapped
        try:
            found[who] = retrieval(each.embedding, each.labels)
        except DataError as error:
            bench.say(f"{who}: retrieval is left out: {error}")
    return {"retrieval": found or None}


def _database(bench: ImageBench) -> Figures:
    if bench.split == "train":
        bench.say("database is left out: the training images are the database, and they are the split evaluated too.")
        return {}
    bench.remarks.extend(f"the database was changed on purpose: {words}." for words in bench.data.damage)
    found = {}
    known = bench.gathered("train")
    for who, each in bench.gathered().items():
        if each.embedding is None:
            continue  # the reason was said when the network was tapped
        try:
            found[who] = _from_database(each, known[who])
        except DataError as error:
            bench.say(f"{who}: database is left out: {error}")
    return {"database": found or None}


def _from_database(queries: Gathered, database: Gathered) -> tuple[DatabaseRetrieval, ...]:
    assert queries.embedding is not None
    assert database.embedding is not None
    pairs = (queries.embedding, queries.labels, database.embedding, database.labels)
    return tuple(database_retrieval(*pairs, metric=metric) for metric in METRICS)


def _robustness(bench: ImageBench) -> Figures:
    answers = {who: _answer(network) for who, network in bench.networks.items()}
    batches = bench.batches(bench.sample(bench.options.robustness_limit))
    found = robustness(answers, batches)
    corrupted = bench.options.cifar_c
    if corrupted is None:
        return {"robustness": found}
    if corrupted.missing:
        bench.say(f"CIFAR-C: {corrupted.folder} has no {', '.join(corrupted.missing)}.")
    other = cifar_c(
        answers,
        corrupted,
        image_size=bench.data.image_size,
        batch_size=bench.batch_size,
        device=bench.device,
        limit=bench.options.robustness_limit,
    )
    return {"robustness": {who: replace(each, cifar_c=other[who]) for who, each in found.items()}}


def _answer(network: Network) -> Answer:
    def logits(images: Tensor) -> Tensor:
        found = answer(network, images).logits
        assert found is not None
        return found

    return logits


def _examples(bench: ImageBench) -> Figures:
    if TEACHER not in bench.networks:
        bench.say(
            "examples are left out: they are what the teacher knows and a student does not, so they need a teacher."
        )
        return {}
    here, split = bench.gathered(), split_of(bench.data, bench.split)
    return {
        "examples": {
            who: examples(here[who], here[TEACHER], split, bench.data.classes, bench.data.image_size)
            for who in bench.students
        }
    }


def _embedding_map(bench: ClassBench) -> Figures:
    known = {who: each for who, each in bench.gathered().items() if each.embedding is not None}
    if not known:
        return {}  # the reasons were said when the networks were tapped
    options = bench.options
    try:
        return {"embedding_map": embedding_map(known, bench.classes, limit=options.map_limit, seed=options.seed)}
    except DataError as error:
        bench.say(f"tsne is left out: {error}")
        return {}


_OF_CLASSES = {
    "accuracy": Part(_classification),
    "calibration": Part(_calibration),
    "fidelity": Part(_fidelity, with_teacher=True, with_embedding=True),
    "retrieval": Part(_retrieval, with_embedding=True),
}
_MAP = {"tsne": Part(_embedding_map, with_embedding=True)}
# Told before the networks are tapped.
_COST = {COST: Part()}

PARTS: Mapping[Kind, Mapping[str, Part]] = {
    "images": {
        **_OF_CLASSES,
        "database": Part(_database, with_embedding=True, named_alone=True),
        "ood": Part(out_of_distribution_part),
        "robustness": Part(_robustness),
        "transfer": Part(transfer_part, with_embedding=True, named_alone=True),
        "examples": Part(_examples, with_teacher=True),
        **_MAP,
        **_COST,
    },
    "classification": {**_OF_CLASSES, **_MAP, **_COST},
    "language": {
        "answers": Part(answers_part),
        "tasks": Part(tasks_part, check=check_tasks, named_alone=True),
        **_COST,
    },
    "search": {
        "fidelity": Part(followed_part, with_teacher=True, with_embedding=True),
        "examples": Part(missed_part, with_teacher=True),
        **_COST,
    },
}
"""By the kind of data, the parts by name in the order in which they are done."""


def check_parts(names: Iterable[str], kind: Kind, options: Options | None = None) -> set[str]:
    """The parts that are named.

    Raises:
        SettingError: one that data of this kind has not, naming those that it has, or with options that cannot be used.
        MissingExtraError: a package that one needs is not installed.
    """
    given = set(names)
    for name in sorted(given):
        check_part(name)
        if name not in PARTS[kind]:
            raise SettingError(
                f"parts: '{name}' is for {_KINDS[_kind_of(name)]}, and this is {_KINDS[kind]}; there are "
                f"{', '.join(PARTS[kind])}."
            )
        check = PARTS[kind][name].check
        if check is not None and options is not None:
            check(options)
    return given


def check_part(name: str) -> None:
    """Raise SettingError, with the nearest spelling, unless some kind of data has a part of this name."""
    everywhere = list(dict.fromkeys(name for parts in PARTS.values() for name in parts))
    if name not in everywhere:
        raise SettingError(f"parts: {unknown_name('part', name, everywhere)}")


def usual_parts(kind: Kind, *, teacher: bool) -> list[str]:
    """The parts of "all": those that need not be named, and nothing that is not there."""
    return [name for name, part in PARTS[kind].items() if not part.named_alone and (teacher or not part.with_teacher)]


def _kind_of(name: str) -> Kind:
    return next(kind for kind, parts in PARTS.items() if name in parts)


def check_options(options: Options, data: ImageData) -> set[str]:
    """The parts that are asked for. Raises SettingError for what cannot be done, before anything is."""
    parts, transfer, other = check_parts(options.parts, "images"), options.transfer, options.other
    if "ood" in parts and isinstance(other, ImageData) and _same(other, data):
        raise SettingError(f"ood is '{other.name}', the data that is evaluated; name other data, or '{NOISE}'.")
    if "transfer" in parts and transfer is not None:
        if transfer.test is None and transfer.val is None:
            raise SettingError(f"transfer: {transfer.name} has neither a test nor a validation split.")
        if options.protocol != "frozen" and not transfer.resident:
            raise SettingError(
                f"transfer_protocol is '{options.protocol}', but the authors' protocol is for images held in memory, and "
                f"{transfer.name} is read from files."
            )
    if "robustness" in parts and options.cifar_c is not None:
        if data.in_channels != 3:
            raise SettingError(
                f"cifar_c holds images in colour, and those of {data.name} have {data.in_channels} channel."
            )
        options.cifar_c.check_classes(len(data.classes))
    return parts


def _same(one: ImageData, other: ImageData) -> bool:
    # Limits make other fingerprints of the same data.
    return one.name == other.name or one.fingerprint() == other.fingerprint()

"""The parts of an evaluation by name: each takes the bench and adds its figures to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from limbeck.data import ImageData
from limbeck.errors import DataError, SettingError, unknown_name
from limbeck.evaluate.answers import answer
from limbeck.evaluate.bench import NOISE, TEACHER, Bench, Figures, Options, split_of
from limbeck.evaluate.calibration import scaled_calibration
from limbeck.evaluate.cifar_c import cifar_c
from limbeck.evaluate.classification import classification
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.database import METRICS, DatabaseRetrieval, database_retrieval
from limbeck.evaluate.embedding_map import embedding_map
from limbeck.evaluate.examples import examples
from limbeck.evaluate.fidelity import fidelity
from limbeck.evaluate.other_data import out_of_distribution_part, transfer_part
from limbeck.evaluate.retrieval import retrieval
from limbeck.evaluate.robustness import Answer, robustness
from limbeck.networks import Network


def _classification(bench: Bench) -> Figures:
    return {"classification": {who: classification(g, bench.data.classes) for who, g in bench.gathered().items()}}


def _calibration(bench: Bench) -> Figures:
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


def _no_validation(bench: Bench) -> str:
    """Why nothing can be fitted on a validation split; empty where it can."""
    if bench.data.val is None:
        return f"{bench.data.name} has no validation split to fit it on"
    return "the validation split, on which it is fitted, is the one evaluated" * (bench.split == "validation")


def _fidelity(bench: Bench) -> Figures:
    if TEACHER not in bench.networks:
        bench.say("fidelity is left out: it needs a teacher.")
        return {}
    here = bench.gathered()
    if _no_validation(bench):
        return {"fidelity": {who: fidelity(here[who], here[TEACHER]) for who in bench.students}}
    other = bench.gathered("validation")
    return {
        "fidelity": {
            who: fidelity(here[who], here[TEACHER], fit=(other[who], other[TEACHER]), fit_name="the validation split")
            for who in bench.students
        }
    }


def _retrieval(bench: Bench) -> Figures:
    found = {}
    for who, each in bench.gathered().items():
        if each.embedding is None:
            continue  # the reason was said when the network was tapped
        try:
            found[who] = retrieval(each.embedding, each.labels)
        except DataError as error:
            bench.say(f"{who}: retrieval is left out: {error}")
    return {"retrieval": found or None}


def _database(bench: Bench) -> Figures:
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


def _robustness(bench: Bench) -> Figures:
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


def _examples(bench: Bench) -> Figures:
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


def _embedding_map(bench: Bench) -> Figures:
    known = {who: each for who, each in bench.gathered().items() if each.embedding is not None}
    if not known:
        return {}  # the reasons were said when the networks were tapped
    options = bench.options
    try:
        return {"embedding_map": embedding_map(known, bench.data.classes, limit=options.map_limit, seed=options.seed)}
    except DataError as error:
        bench.say(f"tsne is left out: {error}")
        return {}


PARTS: Mapping[str, Callable[[Bench], Figures]] = {
    "accuracy": _classification,
    "calibration": _calibration,
    "fidelity": _fidelity,
    "retrieval": _retrieval,
    "database": _database,
    "ood": out_of_distribution_part,
    "robustness": _robustness,
    "transfer": transfer_part,
    "examples": _examples,
    "tsne": _embedding_map,
}
COST = "cost"
"""A part too, but one that is measured before the networks are tapped."""

NAMES = (*PARTS, COST)
NAMED_ALONE = frozenset({"transfer", "database"})
"""Parts that are no part of "all": each is done only where it, or the data for it, is named."""
WITH_TEACHER = frozenset({"fidelity", "examples"})
WITH_EMBEDDING = frozenset({"fidelity", "retrieval", "database", "transfer", "tsne"})


def check_parts(names: Iterable[str]) -> set[str]:
    """The parts that are named, or SettingError with the nearest spelling."""
    given = set(names)
    for name in sorted(given):
        if name not in NAMES:
            raise SettingError(f"parts: {unknown_name('part', name, NAMES)}")
    return given


def check_options(options: Options, data: ImageData) -> set[str]:
    """The parts that are asked for. Raises SettingError for what cannot be done, before anything is."""
    parts, transfer, other = check_parts(options.parts), options.transfer, options.other
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

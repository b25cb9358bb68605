"""The parts of an evaluation by name: each takes the bench and adds its figures to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from limbeck.data import ImageData, ImageSplit, ResidentBatches, Views
from limbeck.data.seeds import stream
from limbeck.data.stratify import choose
from limbeck.errors import DataError, SettingError, unknown_name
from limbeck.evaluate.bench import NOISE, TEACHER, Bench, Options, normalised_for, recoloured, split_of
from limbeck.evaluate.calibration import scaled_calibration
from limbeck.evaluate.cifar_c import cifar_c
from limbeck.evaluate.classification import classification
from limbeck.evaluate.distribution import out_of_distribution
from limbeck.evaluate.embedding_map import embedding_map
from limbeck.evaluate.examples import examples
from limbeck.evaluate.fidelity import fidelity
from limbeck.evaluate.retrieval import retrieval
from limbeck.evaluate.robustness import Answer, robustness
from limbeck.evaluate.transfer import AUTHORS_BATCH, AuthorsProbe, FrozenProbe, Transfer, authors_probe, frozen_probe
from limbeck.networks import Network
from limbeck.signals import Batch

Figures = dict[str, Any]
"""Fields of an ``Evaluation``."""

# The authors pad 4 pixels of 32.
_CROP = 8
_HELD_OUT = 0.1


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
        found: Tensor | None = network.tapped(network.preprocess(images)).logits
        assert found is not None
        return found

    return logits


def _ood(bench: Bench) -> Figures:
    other = bench.options.other
    inside = bench.gathered()
    if other == NOISE:
        count = len(split_of(bench.data, bench.split))
        outside = bench.collect(bench.batches(_noise(bench.data, count, bench.options.seed)))
        name = f"{count:,} images of uniform noise"
    else:
        assert isinstance(other, ImageData)
        split = _last_split(other)
        outside = bench.collect(bench.foreign_batches(other, split))
        name = f"{other.name}, {len(split):,} images"
    return {
        "distribution": {
            who: out_of_distribution(each.logits, outside[who].logits, other=name) for who, each in inside.items()
        }
    }


def _last_split(data: ImageData) -> ImageSplit:
    return next(split for split in (data.test, data.val, data.train) if split is not None)


def _noise(data: ImageData, count: int, seed: int) -> ImageSplit:
    shape = (count, data.in_channels, *data.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(seed))
    return ImageSplit(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def _transfer(bench: Bench) -> Figures:
    other = bench.options.transfer
    if other is None:
        bench.say("transfer is left out: it needs other data, as in --transfer stl10.")
        return {}
    ways = bench.options.protocol
    frozen = _frozen(bench, other) if ways in ("frozen", "both") else {}
    tapped = {who: network for who, network in bench.networks.items() if network.tapped.classifier is not None}
    found = {
        who: Transfer(frozen.get(who), _authors(bench, other, network) if ways in ("authors", "both") else None)
        for who, network in tapped.items()
    }
    return {"transfer": found or None, "transfer_data": other.name}


def _frozen(bench: Bench, other: ImageData) -> dict[str, FrozenProbe]:
    splits = _probe_splits(other)
    # The logits for other data's classes mean nothing; only the embeddings are looked at.
    gathered = [bench.collect(bench.foreign_batches(other, split)) for split in splits]
    return {
        who: frozen_probe(*(each[who] for each in gathered))
        for who in bench.networks
        if gathered[0][who].embedding is not None
    }


def _probe_splits(data: ImageData) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    """Train, validation and test of other data; a missing validation split is cut from train, a missing test is validation."""
    test = data.test or data.val
    assert test is not None
    if data.test is not None and data.val is not None:
        return data.train, data.val, test
    chosen = choose(data.train.labels, max(1, round(_HELD_OUT * len(data.train))), 0, keep=1)
    rest = torch.ones(len(data.train), dtype=torch.bool)
    rest[chosen] = False
    return data.train.subset(rest.nonzero().flatten()), data.train.subset(chosen), test


def _authors(bench: Bench, other: ImageData, network: Network) -> AuthorsProbe:
    *fitted, test = _probe_splits(other)
    channels = bench.data.in_channels
    views = Views(crop=max(1, min(bench.data.image_size) // _CROP), flip=True)
    together = _joined(fitted)
    size = min(AUTHORS_BATCH, len(together))
    train = ResidentBatches(together, views, size, bench.options.seed, device=bench.device)

    def epoch(number: int) -> Iterable[Batch]:
        return recoloured(train.epoch(number), channels)

    return authors_probe(
        network.tapped,
        normalised_for(other, channels, network.preprocess, bench.device),
        epoch,
        bench.foreign_batches(other, test),
        classes=len(other.classes),
        epochs=bench.options.transfer_epochs,
        seed=bench.options.seed,
    )


def _joined(splits: Sequence[ImageSplit]) -> ImageSplit:
    images = [split.images for split in splits if isinstance(split.images, Tensor)]
    labels, index = (torch.cat([getattr(split, name) for split in splits]) for name in ("labels", "index"))
    return ImageSplit(torch.cat(images), labels, index)


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
    "ood": _ood,
    "robustness": _robustness,
    "transfer": _transfer,
    "examples": _examples,
    "tsne": _embedding_map,
}
COST = "cost"
"""A part too, but one that is measured before the networks are tapped."""

NAMES = (*PARTS, COST)
WITH_TEACHER = frozenset({"fidelity", "examples"})
WITH_EMBEDDING = frozenset({"fidelity", "retrieval", "transfer", "tsne"})


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

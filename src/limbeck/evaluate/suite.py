"""All figures of networks, alone or against their teacher, from one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.combination import Combination, open_teacher, parse_combination
from limbeck.data import ImageData, load_data
from limbeck.errors import LimbeckError, NonFiniteError, SettingError
from limbeck.evaluate.accuracy import score_of
from limbeck.evaluate.answers import as_module, tapped
from limbeck.evaluate.bench import TEACHER, Bench, Options, check_classes, split_of
from limbeck.evaluate.cost import Costs, costs
from limbeck.evaluate.parts import COST, PARTS, WITH_EMBEDDING, check_options
from limbeck.evaluate.record import Entry, Evaluation
from limbeck.evaluate.training_data import other_damage
from limbeck.feeds import every_sample
from limbeck.machine import command_line, now, versions
from limbeck.models.spec import parse_spec
from limbeck.networks import Network, open_network, resolve
from limbeck.signals import Batch

logger = logging.getLogger("limbeck")

# Of these sources a network without weights is random, so its figures would say nothing.
_RANDOM_WITHOUT_WEIGHTS = ("zoo", "timm", "torchvision")

Model = str | nn.Module | Combination
"""Run folder, weights file that limbeck wrote, network by name as in NAME@FILE, or the network itself; a teacher of several."""


def evaluate_networks(
    models: Model | Mapping[str, Model],
    data: str | ImageData,
    *,
    teacher: Model | None = None,
    methods: Mapping[str, str] | None = None,
    classifiers: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    split: str = "test",
    options: Options | None = None,
    batch_size: int = 128,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate networks on a split, and against their teacher if one is given.

    What the networks say is gathered in one pass over the split, in which each batch is loaded once; robustness, costs and
    other data need passes of their own. A part that fails, as where a file of other data cannot be read, leaves the others.

    Args:
        models: a network, which is called "model", or several by their names.
        data: whose classes the networks tell.
        teacher: whose students they are, or could be; several as in ``mean(runs/one, runs/two)``, whose embedding and stages
            are those of the principal one.
        methods: how networks were taught, for tables and pages.
        classifiers: by name, the layer whose input is a network's embedding; found where it is not named or not there.
        sizes: by name, the side of the images that a network takes; its weights', or the data's, where it is not named.
        split: "test", "validation" or "train".
        options: which parts, and their settings; none by default, which gives the scores alone.
        workers: processes that decode images which are not held in memory.
        progress: told in a few words what comes next.

    Raises:
        SettingError: an unknown part or split; a network that does not exist, would be random or cannot take the images; no
            network, or one that has the teacher's name.
        WeightsError: weights for other classes or channels. SignalError: a network of other classes than the data's.
        DataError: data that cannot be read, or more than fits into memory. NonFiniteError: logits that are NaN or infinite.
    """
    options = options or Options()
    given = _given(models, teacher)
    images = data if isinstance(data, ImageData) else load_data(data)
    parts = check_options(options, images)
    place = torch.device(device)
    first = next(iter(every_sample(images, split_of(images, split), 2, place, 0)))
    bench = Bench(
        networks={who: _open(each, who, images, first, place, (sizes or {}).get(who)) for who, each in given.items()},
        data=images,
        split=split,
        device=place,
        batch_size=batch_size,
        workers=workers,
        options=options,
    )
    if split == "train":
        bench.remarks.extend(f"the training split was changed on purpose: {words}." for words in images.damage)
    if split == "train" or "database" in parts:
        bench.remarks.extend(other_damage(given, images))
    say = progress or _say_nothing
    found: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def add(part: str, make: Callable[[], Mapping[str, Any]]) -> None:
        say(part)
        try:
            found.update(make())
        except LimbeckError as error:
            failures[part] = str(error)
        except Exception as error:  # somebody else's network raises what it likes, and what is known by now took long
            logger.info("%s failed", part, exc_info=True)
            failures[part] = f"{type(error).__name__}: {error}"

    if COST in parts:  # before anything is tapped: taps keep tensors alive
        add(COST, lambda: {"cost": _cost(bench, given, first)})
    _tap(bench, first, parts, classifiers or {})
    say("scores")
    entries = _entries(bench, methods or {})
    for name in (name for name in PARTS if name in parts):
        add(name, partial(PARTS[name], bench))
    return Evaluation(
        data=images.name,
        split=split,
        classes=tuple(images.classes),
        networks=entries,
        failures=failures,
        remarks=tuple(bench.remarks),
        command=command_line(),
        versions=versions(),
        when=now(),
        **found,
    )


def _given(models: Model | Mapping[str, Model], teacher: Model | None) -> dict[str, Model]:
    """All networks by their names, the students first."""
    students = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not students:
        raise SettingError("there is no network to evaluate.")
    if TEACHER in students:
        raise SettingError(f"a network is called '{TEACHER}', which is the teacher's name here; give it another.")
    return students if teacher is None else {**students, TEACHER: teacher}


def _say_nothing(line: str) -> None:
    return None


def _open(model: Model, who: str, data: ImageData, probe: Batch, device: torch.device, size: int | None) -> Network:
    def open_one(each: str | nn.Module, principal: bool) -> Network:
        return _open_one(each, who, data, probe, device, size)

    network = open_teacher(model, open_one) if who == TEACHER else open_one(_one(model, who), True)
    for each in network.all:
        each.tapped.eval()
    with torch.no_grad():  # refused now, and not after a pass over the whole split
        for each in network.all:
            name = f"{who}, {each.name}" if network.beside else who
            check_classes(name, each.tapped(each.preprocess(probe.inputs.to(device))).logits, data)
    return network


def _one(model: Model, who: str) -> str | nn.Module:
    if isinstance(model, Combination) or (isinstance(model, str) and parse_combination(model) is not None):
        raise SettingError(f"{who}: {model} are several networks, which a teacher may be and a student cannot.")
    return model


def _open_one(
    model: str | nn.Module, who: str, data: ImageData, probe: Batch, device: torch.device, size: int | None
) -> Network:
    if isinstance(model, str):
        spec = parse_spec(resolve(model))
        if spec.source == "zoo" and "/" in spec.name:
            raise SettingError(f"{who}: there is no run folder or weights file {model}.")
        if spec.weights is None and spec.source in _RANDOM_WITHOUT_WEIGHTS:
            raise SettingError(f"{who}: {model} names no weights, so the network would be random; write {model}@FILE.")
    return open_network(
        model, who=who, data=data, probe=probe, device=device, classifier=None, image_size=size, embedding=False
    )


def _tap(bench: Bench, probe: Batch, parts: set[str], classifiers: Mapping[str, str]) -> None:
    if not parts & WITH_EMBEDDING:
        return
    for who, network in bench.networks.items():
        bench.networks[who], remarks = tapped(
            network, probe, stages="fidelity" in parts, classifier=classifiers.get(who)
        )
        for remark in remarks:
            bench.say(f"{who}: {remark}")


def _entries(bench: Bench, methods: Mapping[str, str]) -> dict[str, Entry]:
    gathered = bench.gathered()
    teacher = gathered[TEACHER].logits if TEACHER in gathered else None
    found = {}
    for who, each in gathered.items():
        try:
            score = score_of(each.logits, each.labels, None if who == TEACHER else teacher)
        except NonFiniteError as error:
            raise NonFiniteError(f"{who}: {error}") from None
        network = bench.networks[who]
        found[who] = Entry(
            **asdict(score),
            role=TEACHER if who == TEACHER else "student",
            model=network.name,
            method=methods.get(who),
            parameters=network.parameters,
        )
    return found


def _cost(bench: Bench, given: Mapping[str, Model], first: Batch) -> Costs:
    images = first.inputs[:1].to(bench.device)
    return costs(
        {who: as_module(network, images) for who, network in bench.networks.items()},
        batch_size=bench.batch_size,
        files={who: _file(model) for who, model in given.items()},
        teacher=TEACHER,
    )


def _file(model: Model) -> Path | None:
    if not isinstance(model, str) or parse_combination(model) is not None:
        return None
    weights = parse_spec(resolve(model)).weights
    return None if weights is None else Path(weights).expanduser()

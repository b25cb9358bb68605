"""All figures of networks, alone or against their teacher, from one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from limbeck.config import RunSettings, TrainSettings
from limbeck.data import ImageData, load_data
from limbeck.errors import LimbeckError, SettingError
from limbeck.evaluate.bench import TEACHER, Bench, Options
from limbeck.evaluate.opening import Data, Look, Model, file_of, kind_of, open_bench
from limbeck.evaluate.parts import COST, PARTS, check_options, check_parts
from limbeck.evaluate.record import Entry, Evaluation, Scored
from limbeck.evaluate.training_data import other_damage
from limbeck.machine import command_line, now, versions

logger = logging.getLogger("limbeck")


def evaluate_networks(
    models: Model | Mapping[str, Model],
    data: str | Data,
    *,
    teacher: Model | None = None,
    methods: Mapping[str, str] | None = None,
    classifiers: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    split: str = "test",
    options: Options | None = None,
    settings: RunSettings | None = None,
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
        data: images by name or read, text as tokens (:func:`limbeck.text_feeds.tokens_of`), or a collection in them
            (:func:`limbeck.search_feeds.search_corpus`).
        teacher: whose students they are, or could be; several as in ``mean(runs/one, runs/two)``, whose embedding and stages
            are those of the principal one.
        methods: how networks were taught, for tables and pages.
        classifiers: by name, the layer whose input is a network's embedding; found where it is not named or not there.
        sizes: by name, the side of the images that a network takes; its weights', or the data's, where it is not named.
        split: "test", "validation" or "train".
        options: which parts, and their settings; none by default, which gives the scores alone.
        settings: of text and search, those of a run: how many answers are written, and the most tokens of a text.
        workers: processes that decode images which are not held in memory.
        progress: told in a few words what comes next.

    Raises:
        SettingError: a part or split that the data has not; a network that does not exist, would be random or
            cannot take the samples; no network, or one that has the teacher's name.
        WeightsError: weights for other classes or channels. SignalError: a network of other classes than the data's.
        DataError: data that cannot be read, or more than fits into memory. NonFiniteError: logits that are NaN or infinite.
    """
    options = options or Options()
    given = _given(models, teacher)
    read = load_data(data) if isinstance(data, str) else data
    parts = (
        check_options(options, read)
        if isinstance(read, ImageData)
        else check_parts(options.parts, kind_of(read), options)
    )
    place = torch.device(device)
    look = Look(split, place, batch_size, workers, options, settings or TrainSettings())
    bench = open_bench(given, read, look, sizes or {})
    if progress is not None:
        bench = replace(bench, progress=progress)
    if isinstance(read, ImageData):
        if split == "train":
            bench.remarks.extend(f"the training split was changed on purpose: {words}." for words in read.damage)
        if split == "train" or "database" in parts:
            bench.remarks.extend(other_damage(given, read))
    found: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def add(part: str, make: Callable[[], Mapping[str, Any]]) -> None:
        bench.progress(part)
        try:
            found.update(make())
        except LimbeckError as error:
            failures[part] = str(error)
        except Exception as error:  # somebody else's network raises what it likes, and what is known by now took long
            logger.info("%s failed", part, exc_info=True)
            failures[part] = f"{type(error).__name__}: {error}"

    known = PARTS[bench.kind]
    if COST in parts:  # before anything is tapped: taps keep tensors alive
        add(COST, lambda: bench.costs({who: file_of(model, read) for who, model in given.items()}))
    if any(known[name].with_embedding for name in parts):
        bench.tap(parts, classifiers or {})
    bench.progress("scores")
    scored, told = bench.scores()
    found.update(told)
    for name, part in known.items():
        if name in parts and part.run is not None:
            add(name, partial(part.run, bench))
    return Evaluation(
        data=bench.name,
        split=split,
        kind=bench.kind,
        classes=bench.classes,
        networks={who: _entry(bench, who, each, (methods or {}).get(who)) for who, each in scored.items()},
        failures=failures,
        remarks=tuple(bench.remarks),
        command=command_line(),
        versions=versions(),
        when=now(),
        **found,
    )


def _entry(bench: Bench, who: str, scored: Scored, method: str | None) -> Entry:
    network = bench.networks[who]
    return Entry(
        **asdict(scored),
        role=TEACHER if who == TEACHER else "student",
        model=network.name,
        method=method,
        parameters=network.parameters,
    )


def _given(models: Model | Mapping[str, Model], teacher: Model | None) -> dict[str, Model]:
    """All networks by their names, the students first."""
    students = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not students:
        raise SettingError("there is no network to evaluate.")
    if TEACHER in students:
        raise SettingError(f"a network is called '{TEACHER}', which is the teacher's name here; give it another.")
    return students if teacher is None else {**students, TEACHER: teacher}

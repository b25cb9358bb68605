"""``limbeck evaluate``: figures of networks on a split, alone or against their teacher."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.output import Output
from limbeck.cli.settings import EvaluateSettings
from limbeck.errors import SettingError

if TYPE_CHECKING:
    from limbeck.config import TrainSettings
    from limbeck.data import ImageData
    from limbeck.evaluate.bench import Options
    from limbeck.evaluate.opening import Data


def evaluate(settings: EvaluateSettings, output: Output) -> int:
    """Evaluate the networks that the settings name. Returns 1 when a part failed."""
    from limbeck.cli.device import pick_device
    from limbeck.cli.figures import tables
    from limbeck.cli.subjects import subjects
    from limbeck.evaluate.opening import kind_of
    from limbeck.evaluate.parts import usual_parts
    from limbeck.evaluate.reading import read_evaluated
    from limbeck.evaluate.suite import evaluate_networks
    from limbeck.plugins import load_plugins

    parts = _parts(settings)
    path = None if settings.output is None else settings.output.expanduser()
    if path is not None:
        _check_output(path)
    load_plugins(settings.plugins)
    device = pick_device(settings.device)
    splits = {settings.split, *(["train"] if "database" in parts else [])}
    chosen = subjects(settings.models, settings.teacher, splits=splits, given=settings.model_fields_set)
    for remark in chosen.remarks:
        output.say(remark)  # now, and not after an hour that was for nothing
    settings = _with_data(settings, chosen.data)
    with _told_of_plugins(chosen.plugins, settings.plugins):
        of_run = _of_run(settings)
        data = read_evaluated(of_run, list(chosen.models.values()), chosen.teacher)
        if settings.all:
            parts |= set(usual_parts(kind_of(data), teacher=chosen.teacher is not None))
        found = evaluate_networks(
            chosen.models,
            data,
            teacher=chosen.teacher,
            methods=chosen.methods,
            classifiers=chosen.classifiers,
            sizes=chosen.sizes,
            split=settings.split,
            options=_options(settings, tuple(sorted(parts)), data),
            settings=of_run,
            batch_size=settings.batch_size,
            workers=settings.workers,
            device=device,
            progress=output.say if parts or settings.all else None,
        )
    evaluation = replace(found, remarks=(*chosen.remarks, *found.remarks))
    for remark in found.remarks:
        output.say(remark)
    for part, reason in evaluation.failures.items():
        output.say(f"error: {part} failed: {reason}")
    # Shown first: where the file cannot be written, what took long is not lost.
    output.result(evaluation.as_dict(), *(lambda table=table: table for table in tables(evaluation)))
    if path is not None:
        evaluation.write(path)
    return 1 if evaluation.failures else 0


@contextmanager
def _told_of_plugins(trained_with: Sequence[str], given: Sequence[str]) -> Iterator[None]:
    """Within it, an error is told with the runs' plugins that were not given.

    They are not loaded because a run's folder names them: that may come from somebody else, and would have its code run.
    """
    try:
        yield
    except SettingError as error:
        missing = [name for name in trained_with if name not in given]
        if not missing:
            raise
        words = " ".join(f"--plugins {name}" for name in missing)
        raise SettingError(f"{error} The runs were trained with {words}; give it here too if you trust it.") from error


def _parts(settings: EvaluateSettings) -> set[str]:
    """The parts that are asked for by their names, or by what they need."""
    from limbeck.evaluate.parts import check_part

    named = _split(settings.parts)
    for name in named:
        check_part(name)
    by_setting = {
        "transfer": settings.transfer,
        "ood": settings.ood,
        "robustness": settings.cifar_c,
        "tasks": settings.tasks or None,
    }
    return {*named, *(part for part, value in by_setting.items() if value is not None)}


def _split(texts: Sequence[str]) -> list[str]:
    """Names that were given one by one or with commas between them."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _check_output(path: Path) -> None:
    """Before anything takes long: the file can be written, and nothing but another evaluation is replaced."""
    problem = None
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        problem = "is a folder; name a file, as in evaluation.json"
    elif path.exists() and not path.is_file():
        problem = "is no file"  # a device or a pipe, which may never end when it is read
    elif not above.is_dir():
        problem = f"cannot be written, since {above} is a file and no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        problem = f"cannot be written, since {above} is read-only"
    elif path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if not isinstance(known, dict) or not {"schema", "networks"} <= known.keys():
            problem = "holds something else than an evaluation and is not replaced; name another file"
    if problem:
        raise SettingError(f"output: {path} {problem}.")


def _options(settings: EvaluateSettings, parts: tuple[str, ...], data: Data) -> Options:
    from limbeck.data import ImageData
    from limbeck.evaluate.bench import NOISE, Options
    from limbeck.evaluate.cifar_c import read_cifar_c

    if not isinstance(data, ImageData):  # which has none of what the others are about
        return Options(parts, tasks=tuple(_split(settings.tasks)), tasks_limit=settings.tasks_limit)
    return Options(
        parts=parts,
        robustness_limit=settings.robustness_limit,
        cifar_c=None if settings.cifar_c is None else read_cifar_c(settings.cifar_c),
        transfer=None if settings.transfer is None else _other(settings.transfer, settings, data),
        protocol=settings.transfer_protocol,
        transfer_epochs=settings.transfer_epochs,
        other=NOISE if settings.ood in (None, NOISE) else _other(settings.ood or "", settings, data),
    )


def _other(name: str, settings: EvaluateSettings, data: ImageData) -> ImageData:
    """Other data, its images at the size of the data's."""
    from limbeck.data import load_data

    return load_data(
        name,
        data_dir=settings.data_dir,
        image_size=data.image_size,
        download=settings.download,
        skip_unreadable=settings.skip_unreadable,
    )


def _of_run(settings: EvaluateSettings) -> TrainSettings:
    """The same as the settings of a run, which data is read by."""
    from limbeck.config import TrainSettings

    return TrainSettings.make(
        {name: getattr(settings, name) for name in TrainSettings.model_fields if name in type(settings).model_fields}
    )


def _with_data(settings: EvaluateSettings, known: Mapping[str, Any]) -> EvaluateSettings:
    """Run folders know their data; what the command line says about data wins."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return EvaluateSettings.make({**known, **given})

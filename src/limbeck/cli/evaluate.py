"""``limbeck evaluate``: a network's figures on a split, alone or against a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.output import Output
from limbeck.cli.settings import EvaluateSettings
from limbeck.config import DataSettings
from limbeck.errors import SettingError

if TYPE_CHECKING:
    from limbeck.data import ImageData
    from limbeck.evaluate.bench import Options


def evaluate(settings: EvaluateSettings, output: Output) -> None:
    """Evaluate the network that the settings name."""
    from limbeck.cli.device import pick_device
    from limbeck.cli.figures import tables
    from limbeck.evaluate.suite import evaluate_networks
    from limbeck.feeds import read_data
    from limbeck.plugins import load_plugins

    if not settings.model:
        raise SettingError(
            "name a network: a run folder, a weights file or NAME@FILE, as in 'limbeck evaluate runs/NAME'."
        )
    parts = _parts(settings)
    load_plugins(settings.plugins)
    device = pick_device(settings.device)
    settings = _with_data_of_run(settings)
    data = read_data(settings)
    evaluation = evaluate_networks(
        settings.model or "",
        data,
        teacher=settings.teacher,
        split=settings.split,
        options=_options(settings, parts, data),
        batch_size=settings.batch_size,
        workers=settings.workers,
        device=device,
        progress=output.say if parts else None,
    )
    for remark in evaluation.remarks:
        output.say(remark)
    output.result(evaluation.as_dict(), *(lambda table=table: table for table in tables(evaluation)))


def _parts(settings: EvaluateSettings) -> tuple[str, ...]:
    from limbeck.evaluate.parts import NAMES, check_parts

    named = [name.strip() for text in settings.parts for name in text.split(",") if name.strip()]
    check_parts(named)
    asked = {*named, *(["transfer"] if settings.transfer else []), *(["ood"] if settings.ood else [])}
    if settings.all:
        # Without a teacher or other data there is nothing to say in these; who names one of them is told.
        asked |= {*NAMES} - ({"fidelity"} if not settings.teacher else set())
        asked -= set() if settings.transfer or "transfer" in named else {"transfer"}
    return tuple(name for name in NAMES if name in asked)


def _options(settings: EvaluateSettings, parts: tuple[str, ...], data: ImageData) -> Options:
    from limbeck.evaluate.bench import NOISE, Options

    return Options(
        parts=parts,
        robustness_limit=settings.robustness_limit,
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


def _with_data_of_run(settings: EvaluateSettings) -> EvaluateSettings:
    """A run folder knows its data; what the command line says about data wins."""
    from limbeck.runs import CONFIG

    path = Path(settings.model or "").expanduser()
    config = (path if path.is_dir() else path.parent) / CONFIG
    if not path.exists() or not config.is_file():
        return settings
    known = _read_data_settings(config)
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return EvaluateSettings.make({**known, **given})


def _read_data_settings(config: Path) -> dict[str, Any]:
    import yaml

    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    fields = DataSettings.model_fields
    return {name: values[name] for name in fields if name in values} if isinstance(values, dict) else {}

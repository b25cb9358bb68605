"""Which networks are evaluated: their names, the teacher and the data that their run folders tell of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.config import DataSettings
from limbeck.errors import SettingError

NO_TEACHER = "none"
_TEACHER, _ONLY = "teacher", "model"
# What must be equal for figures on one split to be of the same images.
_SAME_IMAGES = ("data", "image_size", "test_limit")


@dataclass(frozen=True)
class Subjects:
    """What is evaluated.

    models: text that names a network, by the network's short name. methods: what the run of a network tells of its objective.
    teacher: as for the command, None without one. data: data settings of the runs. remarks: what the runs could not tell.
    """

    models: Mapping[str, str]
    methods: Mapping[str, str]
    teacher: str | None
    data: Mapping[str, Any]
    remarks: tuple[str, ...]


def subjects(models: Sequence[str], teacher: str | None) -> Subjects:
    """Networks from run folders, comparisons (which stand for their finished runs), weights files and NAME@FILE.

    Run folders know their data and, unless ``teacher`` is given ("none" for no teacher), the teacher of all of them.

    Raises:
        SettingError: there is none; a folder without a finished run; runs on different data.
    """
    if not models:
        raise SettingError(
            "name a network: a run folder, a weights file or NAME@FILE, as in 'limbeck evaluate runs/NAME'."
        )
    texts = [text for model in models for text in _expanded(model)]
    known = dict(zip(_names(texts), texts, strict=True))
    configs = {name: _config(text) for name, text in known.items()}
    told, remarks = (None, ()) if teacher is not None else _teacher_of(configs)
    return Subjects(
        models=known,
        methods={name: method for name, text in known.items() if (method := _method(Path(text).expanduser()))},
        teacher=None if teacher == NO_TEACHER else teacher or told,
        data=_data_of(configs),
        remarks=remarks,
    )


def _expanded(model: str) -> list[str]:
    """The finished runs in a folder that is none itself; anything else stands for itself."""
    from limbeck.report.read import find_runs
    from limbeck.runs import STUDENT

    path = Path(model).expanduser()
    if not path.is_dir() or (path / STUDENT).is_file():
        return [model]
    found = [str(run) for run in find_runs([path]) if (run / STUDENT).is_file()]
    if not found:
        raise SettingError(f"{model} is a folder without {STUDENT}; name the folder of a finished run.")
    return found


def _names(texts: Sequence[str]) -> list[str]:
    """A short name for each: its folder's, the file's or the network's; longer where two would be the same."""
    names: list[str] = []
    for text in texts:
        short = _short(Path(text).expanduser(), text)
        if short == _TEACHER:
            short = _ONLY if len(texts) == 1 else f"{_TEACHER} as student"
        number, name = 1, short
        while name in names:
            number += 1
            name = f"{short} ({number})"
        names.append(name)
    return names


def _short(path: Path, text: str) -> str:
    from limbeck.runs import STUDENT

    if path.is_dir():
        return path.resolve().name
    if path.is_file():
        return path.resolve().parent.name if path.name == STUDENT else path.stem
    return text.split("@")[0]


def _folder(text: str) -> Path | None:
    path = Path(text).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


def _config(text: str) -> dict[str, Any]:
    from limbeck.runs import CONFIG

    folder = _folder(text)
    if folder is None or not (folder / CONFIG).is_file():
        return {}
    values = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def _method(path: Path) -> str | None:
    from limbeck.report.names import method_label
    from limbeck.report.read import read_run

    result = read_run(path).result if path.is_dir() else None
    return None if result is None else method_label(result)


def _teacher_of(configs: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, tuple[str, ...]]:
    """The one teacher of the runs that have one, and what to say where it cannot be used."""
    told = sorted({str(config["teacher"]) for config in configs.values() if config.get("teacher")})
    if not told:
        return None, ()
    if len(told) > 1:
        return None, (
            f"the runs have different teachers ({', '.join(told)}), so none is compared with; name --teacher.",
        )
    weights = Path(told[0].partition("@")[2] or told[0]).expanduser()
    if not weights.exists():
        return None, (f"the runs' teacher {told[0]} is not here, so none is compared with; name --teacher.",)
    return told[0], ()


def _data_of(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known = {name: config for name, config in configs.items() if config}
    if not known:
        return {}
    first_name, first = next(iter(known.items()))
    for name, config in known.items():
        for setting in _SAME_IMAGES:
            if config.get(setting) != first.get(setting):
                raise SettingError(
                    f"{first_name} has {setting}={first.get(setting)} and {name} has {setting}={config.get(setting)}; "
                    "networks are evaluated together on one data set, so evaluate these apart."
                )
    return {name: first[name] for name in DataSettings.model_fields if name in first}

"""Which networks are evaluated: their names, the teacher and the data that their run folders tell of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.cli.told_teacher import folder_of, members_of, told_teacher
from limbeck.config import DataSettings, QuerySettings, TokenSettings
from limbeck.errors import SettingError
from limbeck.servers import parse_server

NO_TEACHER = "none"
_TEACHER, _ONLY = "teacher", "model"
# By these a folder is an encoder's, which is a network and no run.
_ENCODERS = ("modules.json", "config.json")
_SAME_SPLIT = {
    "test": ("test_limit",),
    "validation": ("val_fraction",),
    "train": ("val_fraction", "train_limit", "label_noise", "imbalance"),
}


@dataclass(frozen=True)
class Subjects:
    """What is evaluated.

    models: text that names a network, by the network's short name. methods: what the run of a network tells of its objective.
    teacher: as for the command, None without one. data: data settings of the runs. remarks: what the runs could not tell.
    classifiers, sizes: by the name of a network, "teacher" among them, the layer whose input is its embedding and the side of
    the images it takes, where its run named them. plugins: what the runs were trained with, which may define their networks.
    """

    models: Mapping[str, str]
    methods: Mapping[str, str]
    teacher: str | None
    data: Mapping[str, Any]
    remarks: tuple[str, ...]
    classifiers: Mapping[str, str]
    sizes: Mapping[str, int]
    plugins: tuple[str, ...]


def subjects(
    models: Sequence[str], teacher: str | None, *, splits: Collection[str] = ("test",), given: Collection[str] = ()
) -> Subjects:
    """Networks from run folders, comparisons (which stand for their finished runs), weights files and NAME@FILE.

    Run folders know their data and, unless ``teacher`` is given ("none" for no teacher), the teacher of all of them.
    A run that is named twice counts once; the teacher's own run is no student where it merely lies in a folder of runs.
    splits: which images are looked at. given: data settings that the user names, in which the runs may therefore differ.

    Raises:
        SettingError: there is none; a folder without a finished run; settings that cannot be read; runs on different data.
    """
    if not models:
        raise SettingError(
            "name a network: a run folder, a weights file or NAME@FILE, as in 'limbeck evaluate runs/NAME'."
        )
    for text in (*models, *([teacher] if teacher else [])):
        if parse_server(text) is not None:
            raise SettingError(
                f"{text}: a model on a server is asked about training texts alone and cannot be evaluated."
            )
    expanded = [_expanded(model) for model in models]
    # By their places, since a shell's runs/* names a run and the comparison that holds it.
    texts = list({_place(text): text for found, _ in expanded for text in found}.values())
    known = dict(zip(_names(texts), texts, strict=True))
    configs = {name: _config(text) for name, text in known.items()}
    told, remarks = (None, ()) if teacher is not None else told_teacher(known, configs)
    chosen = None if teacher == NO_TEACHER else teacher or (told.text if told else None)
    teachers = {_place(text) for text in (members_of(chosen) if chosen else ())} - {_place(text) for text in models}
    # Where there is nothing else they are what is meant.
    known = {name: text for name, text in known.items() if _place(text) not in teachers} or known
    configs = {name: configs[name] for name in known}
    classifiers = {name: str(own) for name, config in configs.items() if (own := config.get("student_classifier"))}
    return Subjects(
        models=known,
        methods={name: method for name, text in known.items() if (method := _method(Path(text).expanduser()))},
        teacher=chosen,
        data=_data_of(configs, splits, given),
        remarks=(*(remark for _, left in expanded for remark in left), *remarks, *_fitted_elsewhere(configs, given)),
        classifiers=classifiers | ({_TEACHER: told.classifier} if told and told.classifier else {}),
        sizes={_TEACHER: told.size} if told and told.size else {},
        plugins=tuple(dict.fromkeys(str(name) for config in configs.values() for name in config.get("plugins") or ())),
    )


def _expanded(model: str) -> tuple[list[str], list[str]]:
    """The finished runs in a folder that is none itself, and a remark on the others; anything else stands for itself."""
    from limbeck.report.read import find_runs
    from limbeck.runs import STUDENT

    path = Path(model).expanduser()
    if not path.is_dir() or any((path / name).is_file() for name in (STUDENT, *_ENCODERS)):
        return [model], []
    runs = find_runs([path])
    found = [run for run in runs if (run / STUDENT).is_file()]
    if not found:
        raise SettingError(f"{model} is a folder without {STUDENT}; name the folder of a finished run.")
    left = [run.name for run in runs if run not in found]
    remarks = [f"{model}: left out, since there is no {STUDENT} in them: {', '.join(left)}."] if left else []
    return [str(run) for run in found], remarks


def _place(text: str) -> str:
    path = Path(text).expanduser()
    return str(path.resolve()) if path.exists() else text


def _names(texts: Sequence[str]) -> list[str]:
    """A short name for each: its folder's, the file's or the network's; with its parent's where two would be the same."""
    short = [_short(Path(text).expanduser(), text) for text in texts]
    names: list[str] = []
    for text, name in zip(texts, short, strict=True):
        if name == _TEACHER:
            name = _ONLY if len(texts) == 1 else f"{_TEACHER} as student"
        elif short.count(name) > 1 and (path := Path(text).expanduser()).exists():
            name = f"{_named(path).parent.name}/{name}"
        names.append(_unlike(name, names))
    return names


def _unlike(name: str, others: Collection[str]) -> str:
    number, free = 1, name
    while free in others:
        number += 1
        free = f"{name} ({number})"
    return free


def _short(path: Path, text: str) -> str:
    if not path.exists():
        return text.split("@")[0]
    named = _named(path)
    return named.stem if named.is_file() else named.name


def _named(path: Path) -> Path:
    """The file or folder whose name tells one network from another: of a run its folder."""
    from limbeck.runs import STUDENT

    return path.resolve().parent if path.name == STUDENT else path.resolve()


def _config(text: str) -> dict[str, Any]:
    from limbeck.runs import CONFIG

    folder = folder_of(text)
    if folder is None or not (folder / CONFIG).is_file():
        return {}
    path = folder / CONFIG
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise SettingError(f"{path} cannot be read, so what {text} was trained on is not known: {reason}") from None
    if not isinstance(values, dict):
        raise SettingError(f"{path} must hold 'name: value' lines, got {type(values).__name__}.")
    return values


def _method(path: Path) -> str | None:
    from limbeck.report.names import method_label
    from limbeck.report.read import read_run

    result = read_run(path).result if path.is_dir() else None
    return None if result is None else method_label(result)


def _data_of(
    configs: Mapping[str, Mapping[str, Any]], splits: Collection[str], given: Collection[str]
) -> dict[str, Any]:
    from limbeck.modalities import modality_of

    known = {name: config for name, config in configs.items() if config}
    if not known:
        return {}
    first_name, first = next(iter(known.items()))
    same = modality_of(None, str(first.get("data"))).same_samples
    for name, config in known.items():
        for setting in dict.fromkeys((*same, *(name for split in splits for name in _SAME_SPLIT[split]))):
            if setting not in given and config.get(setting) != first.get(setting):
                option = "--" + setting.replace("_", "-")
                raise SettingError(
                    f"{first_name} has {setting}={first.get(setting)} and {name} has {setting}={config.get(setting)}; "
                    f"networks are evaluated together on the same samples, so evaluate these apart, or give {option}."
                )
    fields = {name for kind in (DataSettings, TokenSettings, QuerySettings) for name in kind.model_fields}
    return {name: value for name, value in first.items() if name in fields}


def _fitted_elsewhere(configs: Mapping[str, Mapping[str, Any]], given: Collection[str]) -> tuple[str, ...]:
    """What to say where one run's validation images are others' training images."""
    shares = {name: config["val_fraction"] for name, config in configs.items() if "val_fraction" in config}
    if "val_fraction" in given or len(set(shares.values())) < 2:
        return ()
    first = next(iter(shares))
    others = ", ".join(name for name, share in shares.items() if share != shares[first])
    return (
        f"the validation images are those of {first} (val_fraction={shares[first]}); {others} had others, so that what is "
        "fitted on them, such as temperatures, is for these on images that they were trained on.",
    )

"""The teacher that the folders of runs tell of, and where its weights are from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.errors import SettingError
from limbeck.servers import parse_server


def folder_of(text: str) -> Path | None:
    """The folder of a network that a text names, None where nothing of that name is there."""
    path = Path(text).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


@dataclass(frozen=True)
class ToldTeacher:
    """A runs' teacher: its text, the layer whose input is its embedding and the side of its images where they are named."""

    text: str
    classifier: str | None
    size: int | None

    def __str__(self) -> str:
        own = {"teacher_classifier": self.classifier, "teacher_size": self.size}
        named = ", ".join(f"{name}={value}" for name, value in own.items() if value is not None)
        return f"{self.text} with {named}" if named else self.text


def told_teacher(
    known: Mapping[str, str], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[ToldTeacher | None, tuple[str, ...]]:
    """The one teacher of the runs that have one, and what to say where it cannot be used."""
    from limbeck.modalities.search_networks import is_encoder

    told = {
        ToldTeacher(
            _each_from_its_place(str(config["teacher"]), known[name], config),
            config.get("teacher_classifier"),
            config.get("teacher_size"),
        )
        for name, config in configs.items()
        if config.get("teacher")
    }
    if not told:
        return None, ()
    if len(told) > 1:
        named = ", ".join(sorted(map(str, told)))
        return None, (f"the runs have different teachers ({named}), so none is compared with; name --teacher.",)
    (one,) = told
    if (server := parse_server(one.text)) is not None:
        return None, (f"the runs' teacher is {server.model} on a server, so none is compared with; name --teacher.",)
    if not is_encoder(one.text):
        return None, (f"the runs' teacher {one.text} scores pairs and cannot search, so none is compared with.",)
    if not all(map(_is_here, members_of(one.text))):
        return None, (f"the runs' teacher {one.text} is not here, so none is compared with; name --teacher.",)
    return one, ()


def members_of(teacher: str) -> Sequence[str]:
    """The texts of a teacher's networks: of several, or its own."""
    from limbeck.combination import parse_combination

    several = parse_combination(teacher)
    return [teacher] if several is None else [str(member) for member in several.members]


def _each_from_its_place(teacher: str, run: str, config: Mapping[str, Any]) -> str:
    """A teacher's text with each of its networks' as :func:`_from_its_place` has it."""
    from limbeck.combination import parse_combination

    several = parse_combination(teacher)
    if several is None:
        return _from_its_place(teacher, run, config)
    members = tuple(_from_its_place(str(member), run, config) for member in several.members)
    return teacher if members == several.members else str(replace(several, members=members))


def _from_its_place(teacher: str, run: str, config: Mapping[str, Any]) -> str:
    """A network's text, its path as it was from where the run was started, which its folder may tell."""
    folder, runs_dir = folder_of(run), Path(str(config.get("runs_dir") or ""))
    if folder is None or runs_dir.is_absolute() or not runs_dir.parts:
        return teacher
    start = folder.resolve().parent
    if start.parts[-len(runs_dir.parts) :] != runs_dir.parts:
        return teacher
    root = start.parents[len(runs_dir.parts) - 1]
    name, at, weights = ("", "", teacher) if (root / teacher).exists() else teacher.partition("@")
    # From another folder alone, so that the text stays the user's own where it means the same.
    if not weights or root == Path.cwd() or not (root / weights).exists():
        return teacher
    return f"{name}{at}{root / weights}"


def _is_here(text: str) -> bool:
    """Whether the file or folder that a teacher's text names exists; a name alone stands for itself."""
    from limbeck.models.spec import PRETRAINED, parse_spec

    if Path(text).expanduser().exists():
        return True
    try:
        spec = parse_spec(text)
    except SettingError:
        return False
    if spec.weights is None:
        return spec.source != "zoo"
    return spec.weights == PRETRAINED or Path(spec.weights).expanduser().exists()

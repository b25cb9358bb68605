"""Whether training images are those that networks were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.data import ImageData
from limbeck.runs import CONFIG

_UNCHANGED = {"label_noise": 0, "imbalance": 1}


def other_damage(models: Mapping[str, object], data: ImageData) -> list[str]:
    """What to say of run folders whose training images were changed on purpose where ``data`` was not, or the other way round.

    models: by name; what is no run's folder, or does not tell, is passed over.
    """
    said = []
    for who, model in models.items():
        settings = _settings(model)
        changed = {
            name: settings[name] for name, usual in _UNCHANGED.items() if settings.get(name) not in (None, usual)
        }
        if settings and bool(changed) != bool(data.damage):
            theirs = (
                ", ".join(f"{name}={value}" for name, value in changed.items()) or "no wrong labels and no long tail"
            )
            ours = "; ".join(data.damage) or "unchanged"
            said.append(f"{who} was trained with {theirs}, and the training images here are other ones: {ours}.")
    return said


def _settings(model: object) -> dict[str, Any]:
    path = Path(model).expanduser() if isinstance(model, str) else None
    if path is None or not path.exists():
        return {}
    try:
        found = yaml.safe_load(((path if path.is_dir() else path.parent) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}

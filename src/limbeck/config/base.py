"""Settings as pydantic types that say which value is wrong. Imports no torch."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.errors import SettingError, unknown_name

_NETWORKS = {"model": "resnet8x4", "teacher": "resnet32x4@teacher.safetensors", "student": "resnet8x4"}


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, and every error names the key, the value and what is accepted."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "settings") -> Self:
        """Settings from plain values, or SettingError with one sentence for each value that does not fit."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingError("\n".join(_sentence(cls, source, problem) for problem in error.errors())) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings from a YAML file. Only plain YAML is read; tags that make objects are refused."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
            raise SettingError(f"there is no recipe {path}." + (f" Did you mean {near[0]}?" if near else "")) from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or no such date
            raise SettingError(f"the recipe {path} cannot be read: {str(error).replace(chr(10), ' ')}") from None
        if not isinstance(values, dict):
            raise SettingError(f"the recipe {path} must hold 'name: value' lines, got {type(values).__name__}.")
        return cls.make(values, source=str(path))

    def dump(self) -> str:
        """The settings as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def not_named(network: str) -> str:
    """The sentence for a "teacher", "student" or "model" that is not given."""
    return f"{network} is not given; name a network, as in --{network} {_NETWORKS[network]} ('limbeck list models')."


def _sentence(cls: type[BaseModel], source: str, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        *outer, name = problem["loc"]
        place = f"{source}: {'.'.join(map(str, outer))}" if outer else source
        return f"{place}: {unknown_name('setting', str(name), _fields_at(cls, outer))}"
    return f"{source}: {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}."


def _fields_at(cls: type[BaseModel], loc: list[str | int]) -> list[str]:
    for part in loc:
        if isinstance(part, str):
            annotation = cls.model_fields[part].annotation
            inner = (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel))
            cls = next(inner, cls)
    return list(cls.model_fields)

"""A user's own Python files and modules, imported because the user named them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from limbeck.errors import SettingError


def load_plugins(names: Iterable[str]) -> None:
    """Import each ``module.name`` or ``path/to/file.py``; what it defines registers itself.

    Raises:
        SettingError: the file or module does not exist, or fails to import (with its own error).
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _load_file(Path(name))
            else:
                importlib.import_module(name)
        except SettingError:
            raise
        except Exception as error:
            raise SettingError(f"plugins: {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise SettingError(f"plugins: there is no file {path}.")
    module_name = f"limbeck_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)

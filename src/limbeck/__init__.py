"""Knowledge distillation on PyTorch: teach a small network what a large one knows, and see what it kept."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.api import compare, distill, train
    from limbeck.data import load_data
    from limbeck.engine.callbacks import Callback
    from limbeck.errors import LimbeckError
    from limbeck.job import Distilled, Loaders
    from limbeck.models import create_model
    from limbeck.objectives import CE, ICD, KD, Objective, parse_objective
    from limbeck.signals import Batch, Signals
    from limbeck.taps import Tapped

__version__ = "0.1.0"

# Where each public name lives. They are imported when first used, so that `import limbeck` (and `limbeck --help`) is fast.
_HOMES = {
    "Batch": "limbeck.signals",
    "CE": "limbeck.objectives",
    "Callback": "limbeck.engine.callbacks",
    "Distilled": "limbeck.job",
    "ICD": "limbeck.objectives",
    "KD": "limbeck.objectives",
    "LimbeckError": "limbeck.errors",
    "Loaders": "limbeck.job",
    "Objective": "limbeck.objectives",
    "Signals": "limbeck.signals",
    "Tapped": "limbeck.taps",
    "compare": "limbeck.api",
    "create_model": "limbeck.models",
    "distill": "limbeck.api",
    "load_data": "limbeck.data",
    "parse_objective": "limbeck.objectives",
    "train": "limbeck.api",
}

__all__ = [
    "CE",
    "ICD",
    "KD",
    "Batch",
    "Callback",
    "Distilled",
    "LimbeckError",
    "Loaders",
    "Objective",
    "Signals",
    "Tapped",
    "compare",
    "create_model",
    "distill",
    "load_data",
    "parse_objective",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'limbeck' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

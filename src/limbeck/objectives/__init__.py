"""One file a method: its class, defaults, formula, paper. To add one, add a file; nothing else is touched."""

from limbeck.objectives.base import Objective, Paper, WeightedSum
from limbeck.objectives.ce import CE
from limbeck.objectives.icd import ICD
from limbeck.objectives.kd import KD
from limbeck.objectives.registry import objective_class, objectives, parse_objective, presets

__all__ = [
    "CE",
    "ICD",
    "KD",
    "Objective",
    "Paper",
    "WeightedSum",
    "objective_class",
    "objectives",
    "parse_objective",
    "presets",
]

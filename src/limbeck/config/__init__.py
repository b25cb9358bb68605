"""The settings of runs and of verbs: the same types for Python, YAML recipes and the command line. Imports no torch."""

from limbeck.config.base import Settings, not_named
from limbeck.config.comparison import CompareSettings, MemberSettings, defaults_of_runs
from limbeck.config.data import DataSettings
from limbeck.config.search import QuerySettings, SearchSettings
from limbeck.config.text import TextSettings, TokenSettings
from limbeck.config.training import DistillSettings, RunSettings, StageSettings, TeacherSettings, TrainSettings
from limbeck.config.verbs import DemoSettings, ExportSettings, PruneLayersSettings

__all__ = [
    "CompareSettings",
    "DataSettings",
    "DemoSettings",
    "DistillSettings",
    "ExportSettings",
    "MemberSettings",
    "PruneLayersSettings",
    "QuerySettings",
    "RunSettings",
    "SearchSettings",
    "Settings",
    "StageSettings",
    "TeacherSettings",
    "TextSettings",
    "TokenSettings",
    "TrainSettings",
    "defaults_of_runs",
    "not_named",
]

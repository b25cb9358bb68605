"""Settings of the verbs that train nothing. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from limbeck.config import DataSettings, Settings

_PLUGINS = "Your own Python files or modules that add objectives, models or data."


class OutputOptions(Settings):
    """How results and progress are shown; every verb has these."""

    # Not 'json', which is a method of pydantic's models; the option is --json.
    as_json: bool = Field(default=False, description="Print JSON on stdout and nothing else there.")
    quiet: bool = Field(default=False, description="No progress and no remarks on stderr.")
    verbose: bool = Field(default=False, description="Show warnings of libraries, and tracebacks of errors.")


class RecipeOptions(OutputOptions):
    """What verbs with recipes have besides."""

    config: Path | None = Field(
        default=None, description="Recipe: a YAML file with settings. Options of the command line win over it."
    )


class EvaluateSettings(DataSettings):
    """Score a network on a split of a data set."""

    model: str | None = Field(
        default=None, description="Run folder, weights file that limbeck wrote, or network as in NAME@FILE."
    )
    teacher: str | None = Field(
        default=None, description="The same of a teacher, for what is told of the two together."
    )
    parts: list[str] = Field(
        default=[],
        description="More than the scores: accuracy, calibration, fidelity, retrieval, ood, robustness, transfer, cost.",
    )
    all: bool = Field(default=False, description="Every part; transfer where --transfer names data.")
    transfer: str | None = Field(default=None, description="Other data, as for --data, to probe the embedding on.")
    transfer_protocol: Literal["frozen", "authors", "both"] = Field(
        default="frozen", description="Network in eval mode, or batch norms that adapt as in the ICD authors' code."
    )
    transfer_epochs: int = Field(default=120, ge=1, description="Epochs of the authors' protocol.")
    ood: str | None = Field(default=None, description="Other data, as for --data, to be told apart; or 'noise'.")
    robustness_limit: int = Field(
        default=1000, ge=1, description="Corrupt and attack at most this many images, stratified."
    )
    split: Literal["test", "validation", "train"] = Field(default="test", description="Which images.")
    batch_size: int = Field(default=128, ge=1, description="Images at a time.")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    plugins: list[str] = Field(default=[], description=_PLUGINS)


class ReportSettings(Settings):
    """Compare finished runs."""

    runs: list[Path] = Field(
        default=[Path("runs")], min_length=1, description="Run folders, comparisons, or folders that hold them."
    )
    output: Path = Field(default=Path("report.html"), description="The page; a file that is there is replaced.")
    tables: Path | None = Field(
        default=None, description="Folder for the table as Markdown, CSV, LaTeX and JSON; files there are replaced."
    )


class ListSettings(Settings):
    """List what can be named."""

    what: Literal["objectives", "presets", "models", "data"] | None = Field(
        default=None, description="objectives, presets, models or data."
    )
    pattern: str | None = Field(
        default=None, description="Only these names, as in 'resnet*'; for models also 'timm:vit*'."
    )
    plugins: list[str] = Field(default=[], description=_PLUGINS)


class ExplainSettings(Settings):
    """Explain an objective."""

    name: str | None = Field(default=None, description="An objective, its alias, a preset or an expression.")
    plugins: list[str] = Field(default=[], description=_PLUGINS)


class InspectSettings(Settings):
    """Draw a network's modules."""

    model: str | None = Field(
        default=None, description="Network ('limbeck list models'), run folder, or weights file that limbeck wrote."
    )
    data: str | None = Field(default=None, description="Data set whose images and classes the network is for.")
    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    image_size: int | None = Field(default=None, ge=1, description="Side of the images in pixels.")
    classes: int | None = Field(default=None, ge=1, description="Number of classes.")
    channels: int | None = Field(default=None, ge=1, description="Channels of the images.")
    depth: int = Field(default=2, ge=1, description="Levels of modules to draw.")
    plugins: list[str] = Field(default=[], description=_PLUGINS)


class DoctorSettings(Settings):
    """Tell what is here."""

    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    runs_dir: Path = Field(default=Path("runs"), description="Where run folders are.")


class CompletionSettings(Settings):
    """Print a completion script."""

    shell: Literal["bash", "zsh", "fish"] | None = Field(default=None, description="bash, zsh or fish.")

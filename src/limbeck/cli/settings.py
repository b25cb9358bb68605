"""Settings of the verbs that train nothing. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from limbeck.config import DataSettings, QuerySettings, Settings, TokenSettings

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


class EvaluateSettings(DataSettings, TokenSettings, QuerySettings):
    """Score networks on a split of a data set: of images, of text, or of a collection that is searched."""

    models: list[str] = Field(
        default=[],
        description="Run folders, comparisons, weights files that limbeck wrote, or networks as in NAME@FILE.",
    )
    teacher: str | None = Field(
        default=None, description="The same of a teacher, or 'none'; the runs' own teacher when not given."
    )
    output: Path | None = Field(
        default=None,
        description="File for all figures as JSON, which 'limbeck report' draws when it is evaluation.json.",
    )
    parts: list[str] = Field(
        default=[],
        description="More than the scores: accuracy, calibration, fidelity, retrieval, database, ood, robustness, transfer, "
        "examples, tsne, cost; of language models answers, tasks, cost; of search fidelity, examples, cost.",
    )
    all: bool = Field(
        default=False,
        description="Every part that the data has, but database; transfer and tasks where --transfer and --tasks name some.",
    )
    transfer: str | None = Field(default=None, description="Other data, as for --data, to probe the embedding on.")
    transfer_protocol: Literal["frozen", "authors", "both"] = Field(
        default="frozen", description="Network in eval mode, or batch norms that adapt as in the ICD authors' code."
    )
    transfer_epochs: int = Field(default=120, ge=1, description="Epochs of the authors' protocol.")
    ood: str | None = Field(default=None, description="Other data, as for --data, to be told apart; or 'noise'.")
    robustness_limit: int = Field(
        default=1000, ge=1, description="Corrupt and attack at most this many images, stratified."
    )
    cifar_c: Path | None = Field(default=None, description="Folder with CIFAR-10-C or CIFAR-100-C, for robustness too.")
    tasks: list[str] = Field(default=[], description="Tasks of lm-eval by name, as in arc_easy,hellaswag.")
    tasks_limit: int | None = Field(
        default=None, ge=1, description="At most this many samples of each task, to try out."
    )
    split: Literal["test", "validation", "train"] = Field(default="test", description="Which images, texts or queries.")
    batch_size: int = Field(default=128, ge=1, description="Images, texts or documents at a time.")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    plugins: list[str] = Field(default=[], description=_PLUGINS)


class ReportSettings(Settings):
    """Compare runs, and show what was evaluated."""

    runs: list[Path] = Field(
        default=[Path("runs")],
        min_length=1,
        description="Run folders, comparisons, folders that hold them, or files of evaluations.",
    )
    output: Path = Field(default=Path("report.html"), description="The page; a file that is there is replaced.")
    tables: Path | None = Field(
        default=None, description="Folder for the table as Markdown, CSV, LaTeX and JSON; files there are replaced."
    )
    figures: Path | None = Field(
        default=None, description="Folder for the page's figures as SVG and PDF, for a paper; files there are replaced."
    )
    baseline: str | None = Field(
        default=None, description="Method that the others are set beside, as the table names it; the student alone."
    )


class ListSettings(Settings):
    """List what can be named."""

    what: Literal["objectives", "presets", "models", "data", "policies"] | None = Field(
        default=None, description="objectives, presets, models, data or policies."
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


class ReproduceSettings(Settings):
    """Show what was published, and what was measured beside it."""

    table: str | None = Field(default=None, description="One table; all of them when not given.")
    method: str | None = Field(default=None, description="A method of the tables, or an objective of limbeck.")
    pair: str | None = Field(default=None, description="A pair of networks, as in resnet32x4/resnet8x4.")
    teacher: str | None = Field(default=None, description="A teacher of the tables.")
    student: str | None = Field(default=None, description="A student of the tables.")
    runs: list[Path] = Field(
        default=[], description="Folder with finished runs; runs and results, where they exist, when not given."
    )


class DoctorSettings(Settings):
    """Tell what is here."""

    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    runs_dir: Path = Field(default=Path("runs"), description="Where run folders are.")


class CompletionSettings(Settings):
    """Print a completion script."""

    shell: Literal["bash", "zsh", "fish"] | None = Field(default=None, description="bash, zsh or fish.")

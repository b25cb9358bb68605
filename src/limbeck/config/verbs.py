"""What is done with finished networks, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from limbeck.config.base import Settings


class ExportSettings(Settings):
    """Write a student in the formats that others deploy."""

    model: str | None = Field(
        default=None, description="Run folder, weights file that limbeck wrote, or network as in NAME@FILE."
    )
    to: list[Literal["safetensors", "torch", "onnx", "folder"]] | None = Field(
        default=None,
        min_length=1,
        description="Formats to write; all that it has when not given: safetensors, torch and onnx of networks on images, "
        "folder and onnx of encoders and classifiers of text, folder of language models.",
    )
    output: Path = Field(default=Path("exported"), description="Folder for the files and their README.md.")
    overwrite: bool = Field(default=False, description="Replace files of these names in the output folder.")
    include_preprocessing: bool = Field(
        default=False, description="Take uint8 images and normalise them inside, instead of normalised float images."
    )
    dynamic_batch: bool = Field(default=True, description="Take any number of images at once, instead of one.")
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        lt=1,
        description="Largest difference to the network in PyTorch, as a share of its largest logit.",
    )
    data: str | None = Field(
        default=None, description="Data set whose classes and images the network is for; the file's when not given."
    )
    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    classes: int | None = Field(default=None, ge=1, description="Number of classes, when the file does not say.")
    channels: int | None = Field(default=None, ge=1, description="Channels of the images, when the file does not say.")
    image_size: int | None = Field(
        default=None, ge=1, description="Side of the images in pixels; the file's when not given."
    )
    plugins: list[str] = Field(default=[], description="Your own Python files or modules that add models or data.")
    # Not 'json', which is a method of pydantic's models.
    as_json: bool = Field(default=False, description="Print the result as JSON.")


class DemoSettings(Settings):
    """Distil digits, a language model that adds, or an encoder: a teacher, a student alone, and one taught in three ways."""

    about: Literal["images", "text", "search"] = Field(
        default="images",
        description="Handwritten digits, a small language model that adds two numbers, or an encoder that finds documents.",
    )
    seeds: int | None = Field(default=None, ge=1, description="Seeds a method; 3, and 1 for text.")
    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the data; 30 for digits, 5 for text, 16 for search."
    )
    teacher: str | None = Field(default=None, description="Network that teaches; the demo's own when not given.")
    student: str | None = Field(default=None, description="Network that learns; the demo's own when not given.")
    objectives: list[str] = Field(
        default=[], description="Presets or expressions beside the student alone; kd, icd and icd+kd for digits."
    )
    runs_dir: Path = Field(default=Path("runs"), description="Where the demo's folder goes; an older demo is kept.")
    as_json: bool = Field(default=False, description="Print the table as JSON.")


class PruneLayersSettings(Settings):
    """Make a student of a language model by keeping some of its layers."""

    model: str | None = Field(
        default=None,
        description="Language model or encoder, as in hf:FOLDER or hf:NAME, or the folder of a run of one.",
    )
    keep: str | None = Field(default=None, description="Layers to keep, counted from 0, as in 0,4,8.")
    output: Path | None = Field(default=None, description="Folder for the network and its tokenizer.")
    task: Literal["causal", "classification", "encoder"] | None = Field(
        default=None, description="What the network answers with; as it was published."
    )
    overwrite: bool = Field(default=False, description="Replace an output folder that holds a language model.")

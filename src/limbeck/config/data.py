"""Which data, and how it is split and seen."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from limbeck.config.base import Settings


class DataSettings(Settings):
    """Which data, and how it is split and seen."""

    data: str = Field(
        default="digits",
        description="Data set name, image folder, FILE.npz, hf:NAME, text (FILE.jsonl, arithmetic(…), text:hf:NAME), or "
        "search:FOLDER ('limbeck list data').",
    )
    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    val_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the training samples held out when the data has no validation split.",
    )
    train_limit: int | None = Field(
        default=None, ge=1, description="Use at most this many training samples, stratified."
    )
    test_limit: int | None = Field(default=None, ge=1, description="Use at most this many test samples, stratified.")
    # None and not 0 and 1, so that folders of runs that know nothing of these can be resumed and compared.
    label_noise: float | None = Field(
        default=None, ge=0, lt=1, description="Share of the training labels replaced, each by one of the other classes."
    )
    imbalance: float | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="Long tail: training images of the first class over those of the last, exponential between.",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="Side of the images in pixels; the data's own when not given."
    )
    download: bool = Field(default=True, description="Download the data set when it is not on disk.")
    skip_unreadable: bool = Field(
        default=False, description="Leave out images that cannot be read instead of stopping."
    )
    workers: int = Field(default=2, ge=0, description="Processes that decode images which are not held in memory.")

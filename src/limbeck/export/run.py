"""From settings to checked files: all of them, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck.config import ExportSettings
from limbeck.errors import SettingError
from limbeck.export.formats import NAMES, ExportError, Predict, Writer, check_packages
from limbeck.export.subject import Subject, open_subject
from limbeck.files import atomic_path

logger = logging.getLogger("limbeck")

README = "README.md"
_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class ExportedFile:
    """A written file. difference: its largest, as a share of the largest logit of the network in PyTorch."""

    format: str
    path: Path
    size: int
    difference: float


@dataclass(frozen=True)
class ExportResult:
    """What was written, and what it takes and gives.

    shape: (C, H, W) of the input, in ``dtype``; with ``dynamic_batch`` any number of images at once, else one.
    """

    folder: Path
    files: tuple[ExportedFile, ...]
    model: str
    parameters: int
    shape: tuple[int, int, int]
    dtype: str
    dynamic_batch: bool
    num_classes: int
    classes: tuple[str, ...] | None
    opset: int | None
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self) | {"folder": str(self.folder)}
        values["files"] = [asdict(file) | {"path": str(file.path)} for file in self.files]
        return values


def run_export(settings: ExportSettings, say: Callable[[str], None] = logger.info) -> ExportResult:
    """Write a network in the formats asked for, with a model card, and check each file against the network in PyTorch.

    Every file is opened again and run on random images, in batches of 1, 2 and 7 (of 1 without ``dynamic_batch``). Nothing
    is left behind when one of them fails.

    Args:
        say: gets a line for each thing a user wants to know.

    Raises:
        SettingError: a setting that cannot be used, or a file that exists while ``overwrite`` is not set.
        MissingExtraError: ONNX is asked for and its packages are not installed.
        ExportError: a format cannot hold the network, or a file differs by more than ``tolerance``.
    """
    from limbeck.export.card import export_card

    formats = [kind for kind in NAMES if kind in settings.to]
    check_packages(formats)
    paths = {name: settings.output / name for name in [*(NAMES[kind] for kind in formats), README]}
    _check_free(settings, list(paths.values()))
    subject = open_subject(settings)
    say(f"model       {subject.name}: {subject.num_classes} classes, input {subject.dtype} {subject.shape}")
    if subject.random:
        say(f"            its weights are random; name a file to export trained ones, as in {subject.name}@FILE")
    writer = Writer(subject, settings.dynamic_batch)
    with _folder(settings.output), ExitStack() as stack:
        temporary = {name: stack.enter_context(atomic_path(path)) for name, path in paths.items()}
        files = []
        for kind in formats:
            name = NAMES[kind]
            difference = _write(writer, kind, temporary[name], settings)
            files.append(ExportedFile(kind, paths[name], temporary[name].stat().st_size, difference))
            say(f"{kind:<11} {paths[name]}: {files[-1].size:,} bytes, differs by {difference:.1e}")
        result = _result(settings, subject, files, writer.opset)
        temporary[README].write_text(export_card(result, subject), encoding="utf-8")
    return result


def _check_free(settings: ExportSettings, paths: list[Path]) -> None:
    if settings.output.exists() and not settings.output.is_dir():
        raise SettingError(f"output is {settings.output}, which is a file; name a folder.")
    there = [path.name for path in paths if path.exists()]
    if there and not settings.overwrite:
        raise SettingError(
            f"{settings.output} has {' and '.join(there)} already. Name another output folder, or set overwrite to "
            "replace them."
        )


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Turns a folder that cannot be written into a sentence, and removes one that was made for nothing."""
    existed = path.exists()
    try:
        yield
    except OSError as error:
        raise SettingError(f"output: {path} cannot be written: {error.strerror or error}.") from error
    finally:
        if not existed and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _write(writer: Writer, kind: str, path: Path, settings: ExportSettings) -> float:
    writer.write(kind, path)
    batches = _BATCHES if settings.dynamic_batch else _BATCHES[:1]
    difference = max(_difference(writer.subject, writer.open(kind, path), batch) for batch in batches)
    # Written so that a difference of NaN is an error too.
    if not difference <= settings.tolerance:
        raise ExportError(
            f"{kind}: the logits of the written file differ from the network's in PyTorch by {difference:.1e} of the largest "
            f"logit, and tolerance is {settings.tolerance:g}; nothing was kept."
        )
    return difference


@torch.no_grad()
def _difference(subject: Subject, predict: Predict, batch: int) -> float:
    images = subject.example(batch, seed=batch)
    wanted = subject.servable(images)
    largest = float(wanted.abs().max())
    if not wanted.isfinite().all():
        raise ExportError(f"{subject.name} gives logits that are NaN or infinite for random images.")
    found = predict(images)
    if found.shape != wanted.shape:
        return float("inf")
    difference = float((found - wanted).abs().max())
    return difference / largest if largest else difference


def _result(settings: ExportSettings, subject: Subject, files: list[ExportedFile], opset: int | None) -> ExportResult:
    return ExportResult(
        folder=settings.output,
        files=tuple(files),
        model=subject.name,
        parameters=sum(parameter.numel() for parameter in subject.network.parameters()),
        shape=subject.shape,
        dtype=str(subject.dtype).removeprefix("torch."),
        dynamic_batch=settings.dynamic_batch,
        num_classes=subject.num_classes,
        classes=subject.classes,
        opset=opset,
        tolerance=settings.tolerance,
    )

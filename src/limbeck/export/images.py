"""Networks on images, exported as weights, as a traced program and as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from limbeck.config import ExportSettings
from limbeck.errors import SettingError
from limbeck.export.card import export_card
from limbeck.export.exporter import ExportedFile, ExportResult
from limbeck.export.formats import NAMES, ExportError, Predict, Writer, check_packages
from limbeck.export.subject import Subject, open_subject

_BATCHES = (1, 2, 7)


@dataclass(frozen=True, kw_only=True)
class ImageExport(ExportResult):
    """What was written, and what it takes and gives.

    shape: (C, H, W) of the input, in ``dtype``; with ``dynamic_batch`` any number of images at once, else one.
    """

    shape: tuple[int, int, int]
    dtype: str
    dynamic_batch: bool
    num_classes: int
    classes: tuple[str, ...] | None


class ImageExporter:
    """See :class:`limbeck.export.exporter.Exporter`."""

    output = "logits"
    folders: frozenset[str] = frozenset()

    def __init__(self, settings: ExportSettings) -> None:
        self._settings = settings

    def formats(self) -> Mapping[str, str]:
        chosen: Sequence[str] = self._settings.to or list(NAMES)
        for kind in chosen:
            if kind not in NAMES:
                raise SettingError(
                    f"to: '{kind}' is for networks on text; those on images are written as {', '.join(NAMES)}."
                )
        found: dict[str, str] = {kind: name for kind, name in NAMES.items() if kind in chosen}
        check_packages(list(found))
        return found

    def open(self, say: Callable[[str], None]) -> None:
        self.subject = subject = open_subject(self._settings)
        say(f"model       {subject.name}: {subject.num_classes} classes, input {subject.dtype} {subject.shape}")
        if subject.random:
            say(f"            its weights are random; name a file to export trained ones, as in {subject.name}@FILE")
        self._writer = Writer(subject, self._settings.dynamic_batch)

    def write(self, kind: str, path: Path) -> float:
        self._writer.write(kind, path)
        batches = _BATCHES if self._settings.dynamic_batch else _BATCHES[:1]
        return max(_difference(self.subject, self._writer.open(kind, path), batch) for batch in batches)

    def result(self, files: tuple[ExportedFile, ...]) -> ImageExport:
        subject, settings = self.subject, self._settings
        return ImageExport(
            folder=settings.output,
            files=files,
            model=subject.name,
            parameters=sum(parameter.numel() for parameter in subject.network.parameters()),
            shape=subject.shape,
            dtype=str(subject.dtype).removeprefix("torch."),
            dynamic_batch=settings.dynamic_batch,
            num_classes=subject.num_classes,
            classes=subject.classes,
            opset=self._writer.opset,
            tolerance=settings.tolerance,
        )

    def card(self, result: ImageExport) -> str:
        return export_card(result, self.subject)


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

"""Networks on text, exported as folders that transformers and sentence-transformers load, and as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.config import ExportSettings
from limbeck.errors import SettingError
from limbeck.export.exporter import ExportedFile, ExportResult
from limbeck.export.formats import ExportError, check_packages
from limbeck.export.text_card import text_card
from limbeck.export.text_onnx import open_text_onnx, write_text_onnx
from limbeck.text_networks import TextNetwork, open_text, text_kind

_ONNX = {"onnx": "student.onnx"}
_SHAPES = ((1, 3), (2, 8), (7, 13))
"""Rows and tokens of what files are compared on; a row is filled up where there are several."""


@dataclass(frozen=True, kw_only=True)
class TextExport(ExportResult):
    """What was written, and what it takes and gives.

    kind: "causal", "classification" or "search". max_length: tokens of the longest text that was trained on. width: numbers
    that come out of a text, or of each token of a causal model. tokenizer: whether the folder has one of transformers.
    """

    kind: str
    max_length: int
    width: int
    tokenizer: bool
    classes: tuple[str, ...] | None
    similarity: str | None


class TextExporter:
    """See :class:`limbeck.export.exporter.Exporter`."""

    def __init__(self, settings: ExportSettings, kind: str) -> None:
        self._settings, self.kind = settings, kind
        self.output = "embeddings" if kind == "search" else "logits"
        self._folder = "encoder" if kind == "search" else "model"
        self.folders = frozenset({self._folder})
        self._opset: int | None = None

    @classmethod
    def of(cls, settings: ExportSettings) -> TextExporter | None:
        """One for the network that the settings name; None where it is one on images."""
        kind = text_kind(settings.model or "")
        return None if kind is None else cls(settings, kind)

    def formats(self) -> Mapping[str, str]:
        settings = self._settings
        for name in ("data", "classes", "channels", "image_size", "include_preprocessing"):
            if getattr(settings, name):
                raise SettingError(f"{name} is for networks on images, and {settings.model} is one on text.")
        known = {"folder": self._folder, **({} if self.kind == "causal" else _ONNX)}
        for kind in settings.to or known:
            if kind == "onnx" and kind not in known:
                raise SettingError(
                    "to: causal language models are written as a folder alone. Their ONNX needs inputs and outputs for the "
                    "cache of what was read, which the exporters of Hugging Face Optimum make from that folder."
                )
            if kind not in known:
                raise SettingError(
                    f"to: '{kind}' is for networks on images; this one is written as {', '.join(known)}."
                )
        found = {kind: name for kind, name in known.items() if kind in (settings.to or known)}
        check_packages(list(found))
        return found

    def open(self, say: Callable[[str], None]) -> None:
        self.subject = subject = open_text(self._settings.model or "", self.kind)
        say(
            f"model       {subject.name}: {subject.width:,} {self.output} of texts of up to {subject.max_length:,} tokens"
        )
        if subject.documents_of is not None:
            say(
                f"            it encodes queries alone, which search the documents of its teacher, {subject.documents_of}: "
                "encode those with that one"
            )
        if subject.folder_tokenizer is None:
            say("            its tokenizer is none of Hugging Face, so the folder has none; the card tells its tokens")

    def write(self, kind: str, path: Path) -> float:
        subject = self.subject
        if kind == "folder":
            subject.write_folder(path)
            predict = subject.open_folder(path)
        else:
            self._opset = write_text_onnx(subject, path)
            predict = open_text_onnx(path)
        return max(_difference(subject, predict, inputs) for inputs in _examples(subject))

    def result(self, files: tuple[ExportedFile, ...]) -> TextExport:
        subject = self.subject
        return TextExport(
            folder=self._settings.output,
            files=files,
            model=subject.name,
            parameters=sum(parameter.numel() for parameter in subject.network.parameters()),
            opset=self._opset,
            tolerance=self._settings.tolerance,
            kind=self.kind,
            max_length=subject.max_length,
            width=subject.width,
            tokenizer=subject.folder_tokenizer is not None,
            classes=subject.classes,
            similarity=subject.similarity,
        )

    def card(self, result: TextExport) -> str:
        return text_card(result, self.subject)


def _examples(subject: TextNetwork) -> Iterator[dict[str, Tensor]]:
    """Random tokens, in rows of which all but the first are filled up."""
    generator = torch.Generator().manual_seed(0)
    for rows, length in _SHAPES:
        length = min(length, subject.max_length)
        attention = torch.ones(rows, length, dtype=torch.int64)
        for row in range(1, rows):
            attention[row, max(1, length - row) :] = 0
        # Without the padding token inside: some networks tell by it where a text ends.
        tokens = torch.randint(0, subject.vocabulary - 1, (rows, length), generator=generator)
        tokens = tokens + (tokens >= subject.pad)
        yield {"input_ids": tokens.where(attention.bool(), subject.pad), "attention_mask": attention}


@torch.no_grad()
def _difference(
    subject: TextNetwork, predict: Callable[[dict[str, Tensor]], Tensor], inputs: dict[str, Tensor]
) -> float:
    inputs = subject.with_types(inputs)
    wanted, found = (each(inputs) for each in (subject.predict, predict))
    if not wanted.isfinite().all():
        raise ExportError(f"{subject.name} gives numbers that are NaN or infinite for random tokens.")
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.ndim == 3:  # what a causal model says after the end of a text is nobody's
        mask = inputs["attention_mask"].bool()
        wanted, found = wanted[mask], found[mask]
    largest, difference = float(wanted.abs().max()), float((found - wanted).abs().max())
    return difference / largest if largest else difference

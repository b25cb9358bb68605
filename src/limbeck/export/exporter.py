"""What exporting asks of each kind of network, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class ExportedFile:
    """A written file or folder. difference: its largest, as a share of the largest number that the network in PyTorch gives."""

    format: str
    path: Path
    size: int
    difference: float


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written. opset: of ONNX, None without it."""

    folder: Path
    files: tuple[ExportedFile, ...]
    model: str
    parameters: int
    opset: int | None
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self) | {"folder": str(self.folder)}
        values["files"] = [asdict(file) | {"path": str(file.path)} for file in self.files]
        return values


class Exporter(Protocol):
    """Exports networks of one kind.

    output: what networks give, in messages, in the plural. folders: names of what is written that are folders.
    """

    output: str
    folders: frozenset[str]

    def formats(self) -> Mapping[str, str]:
        """The formats to be written, each with the name of its file, before anything takes long.

        Raises:
            SettingError: one that such networks have not. MissingExtraError: a package for one is not installed.
        """
        ...

    def open(self, say: Callable[[str], None]) -> None:
        """Make the network ready. Raises LimbeckError for what cannot be."""
        ...

    def write(self, kind: str, path: Path) -> float:
        """Write a format to a path, open it again and compare: the largest difference as a share of the largest number.

        Raises ExportError where the format cannot hold the network.
        """
        ...

    def result(self, files: tuple[ExportedFile, ...]) -> ExportResult:
        """What was written, in facts."""
        ...

    def card(self, result: Any) -> str:
        """The model card, in Markdown."""
        ...

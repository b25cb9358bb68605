"""From settings to checked files: all of them, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from limbeck.config import ExportSettings
from limbeck.errors import SettingError
from limbeck.export.exporter import ExportedFile, Exporter, ExportResult
from limbeck.export.formats import ExportError
from limbeck.export.images import ImageExporter
from limbeck.export.text import TextExporter
from limbeck.files import atomic_folder, atomic_path
from limbeck.plugins import load_plugins

logger = logging.getLogger("limbeck")

README = "README.md"


def run_export(settings: ExportSettings, say: Callable[[str], None] = logger.info) -> ExportResult:
    """Write a network in the formats asked for, with a model card, and check each file against the network in PyTorch.

    Every file is opened again and run: of a network on images on random images, in batches of 1, 2 and 7 (of 1 without
    ``dynamic_batch``), of one on text on random tokens, in such batches of rows of several lengths. Nothing is left behind
    when one of them fails.

    Args:
        say: gets a line for each thing a user wants to know.

    Raises:
        SettingError: a setting that cannot be used, a format that such a network has not, or a file that exists while
            ``overwrite`` is not set.
        MissingExtraError: ONNX is asked for and its packages are not installed.
        ExportError: a format cannot hold the network, or a file differs by more than ``tolerance``.
    """
    if not settings.model:
        raise SettingError(
            "model is not given; name a run's folder, a weights file, or a network as in resnet8x4@FILE."
        )
    load_plugins(settings.plugins)
    exporter = _exporter(settings)
    formats = exporter.formats()
    paths = {name: settings.output / name for name in (*formats.values(), README)}
    _check_free(settings, list(paths.values()))
    exporter.open(say)
    with _folder(settings.output), ExitStack() as stack:
        temporary = {name: stack.enter_context(_atomic(exporter, name, path)) for name, path in paths.items()}
        files = []
        for kind, name in formats.items():
            difference = _write(exporter, kind, temporary[name], settings.tolerance)
            files.append(ExportedFile(kind, paths[name], _size(temporary[name]), difference))
            say(f"{kind:<11} {paths[name]}: {files[-1].size:,} bytes, differs by {difference:.1e}")
        result = exporter.result(tuple(files))
        temporary[README].write_text(exporter.card(result), encoding="utf-8")
    return result


def _exporter(settings: ExportSettings) -> Exporter:
    """How a network of this kind is exported, as its file or its folder says."""
    about = TextExporter.of(settings)
    return ImageExporter(settings) if about is None else about


def _atomic(exporter: Exporter, name: str, path: Path) -> AbstractContextManager[Path]:
    return atomic_folder(path) if name in exporter.folders else atomic_path(path)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


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


def _write(exporter: Exporter, kind: str, path: Path, tolerance: float) -> float:
    difference = exporter.write(kind, path)
    # Written so that a difference of NaN is an error too.
    if not difference <= tolerance:
        raise ExportError(
            f"{kind}: the {exporter.output} of the written file differ from the network's in PyTorch by {difference:.1e} of "
            f"the largest, and tolerance is {tolerance:g}; nothing was kept."
        )
    return difference

"""Writes a language model as a folder that transformers, and all that read its folders, take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import SettingError
from limbeck.files import atomic_folder

_CONFIG = "config.json"


@dataclass(frozen=True)
class WrittenFolder:
    """What was written: where, the bytes of each file by name, and whether a tokenizer is among them."""

    path: Path
    files: dict[str, int]
    tokenizer: bool

    @classmethod
    def of(cls, path: Path, *, tokenizer: bool) -> WrittenFolder:
        """What lies in a folder now."""
        files = {str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}
        return cls(path, files, tokenizer)


def check_folder(path: Path, overwrite: bool) -> None:
    """Raise SettingError unless a language model may be written there.

    A folder with something in it is replaced only with ``overwrite``, and only when it is such a folder itself.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise SettingError(f"output is {path}, which is a file; name a folder.")
    if not (path / _CONFIG).is_file():
        raise SettingError(f"output is {path}, which holds something else than a language model; name another folder.")
    if not overwrite:
        raise SettingError(f"the folder {path} exists. Name another output folder, or set overwrite to replace it.")


def write_folder(network: nn.Module, tokenizer: Any, path: Path, *, overwrite: bool = False) -> WrittenFolder:
    """Write configuration, weights as safetensors and the tokenizer: all of it, or nothing.

    Args:
        network: of transformers.
        tokenizer: of transformers, or None to write none.
        path: a new or empty folder, or with ``overwrite`` one with a language model, which is replaced.

    Raises:
        SettingError: the folder cannot be written, or the network is none of transformers.
    """
    check_folder(path, overwrite)
    if not callable(getattr(network, "save_pretrained", None)):
        raise SettingError(
            f"{type(network).__name__} is no network of transformers, so it cannot write itself as a folder."
        )
    try:
        with atomic_folder(path) as temporary:
            network.save_pretrained(temporary)  # type: ignore[operator]  # checked above
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
    except OSError as error:
        raise SettingError(f"output: {path} cannot be written: {error.strerror or error}.") from error
    return WrittenFolder.of(path, tokenizer=tokenizer is not None)

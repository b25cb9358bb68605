"""What image classifiers and language models of Hugging Face transformers have in common: where they are, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from limbeck.errors import MissingExtraError, SettingError, check_choice, unknown_name
from limbeck.models.sources.base import unreachable_weights

DTYPES = ("auto", "float32", "bfloat16", "float16")
WHERE = ("revision", "subfolder", "cache_dir", "local_files_only")


def import_transformers(purpose: str) -> Any:
    """The package, or MissingExtraError that says what it was needed for."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "text", purpose) from None
    return transformers


def folder_of(name: str) -> str:
    """The folder or the name on the hub that transformers is asked for."""
    return str(Path(name).expanduser()) if name.startswith("~") else name


def dtype_of(name: str, config: Any) -> torch.dtype:
    """The type of weights that a name of ``DTYPES`` means; ``auto`` is the configuration's, or float32 where it has none.

    Raises:
        SettingError: another name.
    """
    check_choice("dtype", name, DTYPES)
    chosen = getattr(config, "dtype", None) if name == "auto" else getattr(torch, name)
    return chosen if isinstance(chosen, torch.dtype) else torch.float32


def read_config(
    label: str, folder: str, where: Mapping[str, Any], changes: Mapping[str, Any], others: Collection[str] = ()
) -> Any:
    """The configuration of a published network, with a user's arguments in it. Code from the hub is never run.

    Args:
        label: how the network was named, for messages.
        where: arguments that say where its files are.
        changes: the user's arguments that are fields of the configuration.
        others: arguments that exist besides, for the message about one that does not.

    Raises:
        SettingError: an argument that is no field, a value that does not fit, or a network that transformers does not know.
        WeightsError: nothing is there.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    read = partial(AutoConfig.from_pretrained, folder, trust_remote_code=False, **where)
    try:
        config = read()
    except OSError as error:
        raise unreachable_weights(label, error) from error
    except ValueError as error:
        raise SettingError(f"{label} is not a model that transformers can build: {error}") from error
    accepted = sorted({*config.to_dict(), *WHERE, *others})
    for name in changes:
        if name not in accepted:
            raise SettingError(unknown_name(f"argument of {label}", name, accepted))
    try:
        return read(**changes) if changes else config
    except (TypeError, ValueError, StrictDataclassError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        raise SettingError(f"{label} cannot be built with {given}: {' '.join(str(error).split())}") from error

"""Folders of adapters, as peft writes them: which network they are for, and that network with them in its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import MissingExtraError, SettingError, WeightsError
from limbeck.models.language.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from limbeck.models.language.lora import with_config
from limbeck.models.weights import load_state

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_SHOWN = 4


def has_adapter(folder: str) -> bool:
    """Whether a folder holds adapters and no whole network."""
    path = Path(folder)
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def has_tokenizer(folder: str) -> bool:
    """Whether a folder holds a tokenizer."""
    return any((Path(folder) / name).is_file() for name in _TOKENIZERS)


def base_of(label: str, folder: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name or folder of the network that a folder's adapters are for, and the arguments that are meant for it.

    The argument ``base`` goes before what the folder says.

    Raises:
        SettingError: the folder does not say.
        WeightsError: it cannot be read, or its adapters are not LoRA.
    """
    told = _config(label, folder)
    base = arguments.get("base") or told.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SettingError(f"{label} does not say which network its adapters are for; write {label}(base='FOLDER').")
    return base.removeprefix("hf:"), {name: value for name, value in arguments.items() if name != "base"}


def merged_with(label: str, folder: str, network: nn.Module) -> tuple[nn.Module, bool]:
    """The network with a folder's adapters in its weights, and whether they bring a classifier; the network is changed.

    Raises:
        WeightsError: the adapters do not fit the network, or are no safetensors.
        MissingExtraError: peft is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "text", f"reading {label}") from None
    path = Path(folder) / ADAPTER_WEIGHTS
    if not path.is_file():
        raise WeightsError(
            f"{label} holds no {ADAPTER_WEIGHTS}. Adapters in other files, such as pickles, are not opened; peft writes "
            "safetensors with save_pretrained(folder)."
        )
    state = load_state(path)
    try:
        # Where the base was when the adapters were made does not matter now.
        told = {name: value for name, value in _config(label, folder).items() if name != "base_model_name_or_path"}
        wrapper: Any = with_config(network, peft.LoraConfig.from_peft_type(**told))
        found = peft.set_peft_model_state_dict(wrapper, state)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"the adapters of {label} do not fit {type(network).__name__}: {reason:.300}") from error
    lacking = [name for name in found.missing_keys if "lora_" in name or "modules_to_save" in name]
    if lacking or found.unexpected_keys:
        names = [*lacking, *found.unexpected_keys]
        raise WeightsError(
            f"the adapters of {label} do not fit {type(network).__name__}: {', '.join(names[:_SHOWN])} ({len(names)} in all) "
            "are missing or unexpected."
        )
    plain: nn.Module = wrapper.merge_and_unload()
    return plain.requires_grad_(True), any("lora_" not in name for name in state)


def _config(label: str, folder: str) -> dict[str, Any]:
    try:
        told = json.loads((Path(folder) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{label}: its {ADAPTER_CONFIG} cannot be read ({error}).") from error
    kind = told.get("peft_type") if isinstance(told, dict) else None
    if kind != "LORA":
        raise WeightsError(f"{label} holds adapters of the kind {kind!r}; limbeck reads LORA.")
    return dict(told)

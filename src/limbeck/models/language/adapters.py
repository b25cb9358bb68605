"""Adapters that a student learns with: how they are asked for, what is kept of them, and how they become weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import LimbeckError, SettingError, check_number, check_whole, unknown_name
from limbeck.expression import parse_call
from limbeck.files import atomic_folder
from limbeck.models.language.lora import adapter_config, adapter_state, adapters_of, with_lora

SETTING = "student_lora"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Lora:
    """Adapters of low rank, as a setting asks for them; see :func:`limbeck.models.language.with_lora`.

    Raises:
        SettingError: a value out of its range.
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, low=1)
        if self.alpha is not None:
            check_number("alpha", self.alpha, low=0, open_low=True)
        check_number("dropout", self.dropout, low=0, high=1)
        if self.targets is not None and not all(isinstance(name, str) and name for name in self.targets):
            raise SettingError(f"targets are names of linear layers, as in ['q_proj', 'v_proj'], got {self.targets!r}.")


def parse_lora(text: str) -> Lora:
    """What ``rank=8, alpha=16, targets=['q_proj', 'v_proj'], dropout=0.1`` asks for; no code is run.

    Raises:
        SettingError: it cannot be read, or a value is out of its range.
    """
    try:
        call = parse_call(f"lora({text})", SETTING)
        given, accepted = dict(call.arguments), [item.name for item in fields(Lora)]
        for name in given:
            if name not in accepted:
                raise SettingError(unknown_name("argument of lora", name, accepted))
        if "rank" not in given or call.operands:
            raise SettingError(f"arguments are given by name, the rank among them, as in 'rank=8', got {text!r}.")
        targets = given.get("targets")
        if targets is not None:
            given["targets"] = (targets,) if isinstance(targets, str) else tuple(targets)
        return Lora(**given)
    except SettingError as error:
        raise SettingError(f"{SETTING}: {error}") from None


class Adapters:
    """The adapters in a network whose own weights are frozen: they alone learn, until :meth:`fold`.

    Made before the network is tapped or wrapped. The network itself gets them: it is changed and keeps its class, so that
    its layers have the paths that they had.

    Attributes:
        module: the adapters, and a classifier that trains, alone: their parameters and their ``state_dict``.
        base: the name or folder of the published network that they are for; None where there is no such thing.

    Args:
        lora: what is asked for.
        train_classifier: whether the layers after the last hidden state learn too, as those of a classifier do.

    Raises:
        SettingError: the network has no such layers (the message names those that it has), or adapters already.
        MissingExtraError: peft is not installed.
    """

    def __init__(
        self, network: nn.Module, lora: Lora, *, train_classifier: bool = False, base: str | None = None
    ) -> None:
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        try:
            # Beside the network, not in its place: paths of taps and arguments of its forward stay those of the network.
            self._wrapper: Any = with_lora(
                network, lora.rank, lora.alpha, lora.targets, lora.dropout, train_classifier=train_classifier
            )
        except SettingError as error:
            raise SettingError(f"{SETTING}: {error}") from None
        self.base = base
        self._network, self._learning, self._inside = network, learning, True
        self._kept: dict[str, Tensor] = {}
        self._config: dict[str, Any] = adapter_config(self._wrapper)
        self.module = adapters_of(network)

    @property
    def parameters(self) -> int:
        """How many numbers learn."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def fold(self) -> None:
        """Add the adapters into the network's weights and take them out: it computes the same, and has its own layers again.

        What was asking for a gradient before does so again.
        """
        self._kept = {name: value.to("cpu", copy=True) for name, value in adapter_state(self._wrapper).items()}
        self._take_out(merge=True)

    def close(self) -> None:
        """Take the adapters out of a network that is not :meth:`fold`-ed, which is then as it was given."""
        if self._inside:
            self._take_out(merge=False)

    def _take_out(self, *, merge: bool) -> None:
        wrapped = {path: part for path, part in self._network.named_modules() if hasattr(part, "base_layer")}
        if merge:
            self._wrapper.merge_and_unload()
        else:
            self._wrapper.unload()
        for path, part in wrapped.items():
            plain = self._network.get_submodule(path)
            # What was tapped at an adapted layer is tapped there still, and the taps' handles take these hooks off.
            plain._forward_hooks, plain._forward_pre_hooks = part._forward_hooks, part._forward_pre_hooks
        for parameter in self._learning:
            parameter.requires_grad_(True)
        self._inside = False

    def write(self, folder: Path) -> None:
        """Write what :meth:`fold` added, as peft reads it: configuration and safetensors, all of it or nothing.

        Raises:
            LimbeckError: the folder cannot be written.
        """
        told = {**self._config, "base_model_name_or_path": self.base, "inference_mode": True}
        try:
            with atomic_folder(folder) as temporary:
                # As text and not by peft, which would ask the hub about the base.
                text = json.dumps(told, indent=1, default=_plain)
                (temporary / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
                save_file(self._kept, temporary / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        except OSError as error:
            raise LimbeckError(f"the adapters could not be written to {folder} ({error}).") from error


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))

"""A network with what belongs to it: taps, preprocessing, and the words that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from limbeck.data import ImageData, Preprocess
from limbeck.errors import LimbeckError, SettingError, WeightsError
from limbeck.models import CreatedModel, InputSpec, create_model
from limbeck.runs import STUDENT
from limbeck.signals import Batch
from limbeck.taps import Tapped, find_classifier

_CARD = "limbeck"


@dataclass(frozen=True)
class Network:
    """A tapped network and the module that makes its input.

    name: how it was asked for, or its class. preprocess: from the batch's inputs to the network's input.
    """

    name: str
    tapped: Tapped
    preprocess: nn.Module

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(parameter.numel() for parameter in self.tapped.network.parameters())


def open_network(
    model: str | nn.Module,
    *,
    who: str,
    data: ImageData | None,
    probe: Batch,
    device: torch.device,
    features: Mapping[str, str],
    classifier: str | None,
    image_size: int | None = None,
) -> Network:
    """Make or take a network, put it on the device, find its embedding and set up its input.

    ``who`` is "teacher" or "student", for messages. Weights that know their normalisation (published ones, and files that
    limbeck wrote) bring it along; otherwise the data's is used.

    Raises:
        SettingError, WeightsError: the network does not exist, or its weights do not fit.
        TapError: a tap names no layer, or the classifier cannot be told.
    """
    name = model if isinstance(model, str) else type(model).__name__
    spec: InputSpec | None = None
    if isinstance(model, str):
        if data is None:
            raise SettingError(
                f"the {who} is given by name, which needs a data set by name too; give the network itself."
            )
        created = _create(model, who, data)
        network, name, spec = created.network, created.name, created.input or _card_input(created.weights)
    else:
        network = model
    preprocess = nn.Identity() if data is None else _preprocess(data, spec, image_size)
    network.to(device)
    preprocess.to(device)
    classifier = classifier or _classifier(network, preprocess(probe.inputs[:2]), who)
    return Network(name, Tapped(network, features=features, classifier=classifier), preprocess)


def resolve(model: str) -> str:
    """The text that ``create_model`` reads, from that text itself, a run's folder, or a weights file that limbeck wrote.

    Raises:
        SettingError: a folder that is no finished run, or a file that does not say which network it is of.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / STUDENT).is_file():
            raise SettingError(f"{model} is a folder without {STUDENT}; name the folder of a finished run.")
        path = path / STUDENT
    elif path.suffix != ".safetensors" or not path.is_file():
        return model
    facts = read_card(path)
    if "model" not in facts:
        raise SettingError(f"{path} does not say which network its weights are of; write NAME@{path}.")
    return f"{facts['model']}@{path}"


def _create(model: str, who: str, data: ImageData) -> CreatedModel:
    try:
        created = create_model(
            resolve(model), num_classes=len(data.classes), in_channels=data.in_channels, image_size=max(data.image_size)
        )
    except LimbeckError as error:
        raise type(error)(f"{who}: {error}") from None
    if who == "teacher" and created.new_classifier:
        raise WeightsError(
            f"teacher: the published weights of {created.name} are for other classes than the {len(data.classes)} of "
            f"{data.name}, so its classifier would be random; fine-tune it first with 'limbeck train --model {model}'."
        )
    return created


def _classifier(network: nn.Module, inputs: torch.Tensor, who: str) -> str:
    try:
        return find_classifier(network, inputs)
    except LimbeckError as error:
        raise type(error)(f"{who}: {error}") from None


def _preprocess(data: ImageData, spec: InputSpec | None, image_size: int | None) -> Preprocess:
    size = (image_size, image_size) if image_size else (spec.size if spec is not None else None)
    if spec is None:
        return Preprocess(data.mean, data.std, size)
    channels = len(spec.mean)
    return Preprocess(spec.mean, spec.std, size, spec.interpolation, channels)


def checkpoint_gradients(network: nn.Module, name: str) -> None:
    """Trade time for memory in a network that knows how; SettingError for one that does not."""
    for method in ("set_grad_checkpointing", "gradient_checkpointing_enable"):  # timm, transformers
        enable = getattr(network, method, None)
        if callable(enable):
            enable()
            return
    raise SettingError(f"gradient_checkpointing: {name} does not support it; timm and Hugging Face networks do.")


def share_preprocess(first: Network, second: Network) -> nn.Module:
    """The first network's preprocessing when it does the same as the second's, else the second's."""
    ours, theirs = getattr(first.preprocess, "settings", None), getattr(second.preprocess, "settings", None)
    identity = isinstance(first.preprocess, nn.Identity) and isinstance(second.preprocess, nn.Identity)
    return first.preprocess if identity or (ours is not None and ours == theirs) else second.preprocess


def card(model: str, data: ImageData | None, preprocess: nn.Module) -> dict[str, str]:
    """What a weights file says of itself: the network, its classes and its input."""
    facts: dict[str, Any] = {"model": model}
    if data is not None and isinstance(preprocess, Preprocess):
        mean, std, size, interpolation, _ = preprocess.settings
        spec = InputSpec(mean, std, size, interpolation)
        facts |= {
            "data": data.name,
            "classes": list(data.classes),
            "in_channels": data.in_channels,
            "input": asdict(spec),
        }
        facts |= {"image_size": list(data.image_size)}
    return {"format": "pt", _CARD: json.dumps(facts)}


def read_card(path: Path | str) -> dict[str, Any]:
    """What :func:`card` wrote into a safetensors file; empty for other files."""
    if not str(path).endswith(".safetensors") or not Path(path).is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get(_CARD, "{}"))
            return facts
    except (SafetensorError, json.JSONDecodeError, OSError):
        return {}


def _card_input(weights: str | None) -> InputSpec | None:
    facts = read_card(weights).get("input") if weights else None
    if not facts:
        return None
    size = facts["size"]
    return InputSpec(
        tuple(facts["mean"]), tuple(facts["std"]), None if size is None else tuple(size), facts["interpolation"]
    )

"""A network with what belongs to it: taps, preprocessing, and the words that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from limbeck.data import ImageData, Preprocess
from limbeck.errors import LimbeckError, SettingError, WeightsError
from limbeck.models import CreatedModel, InputSpec, create_model
from limbeck.models.spec import parse_spec
from limbeck.runs import STUDENT
from limbeck.signals import Batch
from limbeck.taps import Tapped, evaluating, find_classifier
from limbeck.teachers.rules import Rule

if TYPE_CHECKING:
    from limbeck.models.language import Adapters

CARD = "limbeck"
"""Key of a safetensors file's metadata under which limbeck writes."""
_COLOURS = 3


@dataclass(frozen=True)
class Network:
    """A tapped network and the module that makes its input.

    name: how it was asked for, or its class. preprocess: from the batch's inputs to the network's input.
    adapters: what alone learns in it, where its own weights are frozen.
    beside, rule: where a teacher is several networks, those beside this one, and how their logits become one answer.
    """

    name: str
    tapped: Tapped
    preprocess: nn.Module
    beside: tuple[Network, ...] = ()
    rule: Rule | None = None
    adapters: Adapters | None = None

    @property
    def parameters(self) -> int:
        """How many numbers it holds, those of networks beside it among them."""
        own = sum(parameter.numel() for parameter in self.tapped.network.parameters())
        return own + sum(other.parameters for other in self.beside)

    def close(self) -> None:
        """Take off taps and adapters: the module is as it was given, or holds what the adapters learnt in its weights."""
        self.tapped.close()
        if self.adapters is not None:
            self.adapters.close()

    @property
    def all(self) -> tuple[Network, ...]:
        """Itself and the networks beside it."""
        return (self, *self.beside)


def open_network(
    model: str | nn.Module,
    *,
    who: str,
    data: ImageData | None,
    probe: Batch,
    device: torch.device,
    classifier: str | None,
    image_size: int | None = None,
    embedding: bool = True,
) -> Network:
    """Make or take a network, put it on the device, find its embedding and set up its input.

    ``who`` is "teacher" or "student", for messages. Weights that know their normalisation (published ones, and files that
    limbeck wrote) bring it along, and so does a network whose attribute ``input_spec`` is an ``InputSpec``; otherwise the
    data's is used. They bring the size of their images along too, which ``image_size`` overrides. Grey images are repeated
    for a network that takes three channels. Without ``embedding`` the classifier is tapped only if it is named.

    Raises:
        SettingError, WeightsError: the network does not exist, its weights do not fit, or it cannot take the images.
        TapError: a tap names no layer, or the classifier cannot be told.
    """
    name = model if isinstance(model, str) else type(model).__name__
    spec: InputSpec | None = None
    if isinstance(model, str):
        if data is None:
            raise SettingError(
                f"the {who} is given by name, which needs a data set by name too; give the network itself."
            )
        created = _create(model, who, data, image_size)
        network, name, spec = created.network, created.name, created.input
        if spec is None:
            spec = _input_at_its_size(read_card(created.weights or ""), data)
    else:
        network = model
    spec = spec or _declared_input(network, who)
    network.to(device)
    preprocess: nn.Module = nn.Identity()
    if data is not None:
        preprocess = _preprocess(data, spec, image_size).to(device)
        preprocess = _with_colours(network, preprocess, probe.inputs[:2]).to(device)
    if embedding and not classifier:
        classifier = _classifier(network, preprocess(probe.inputs[:2]), name, who)
    elif data is not None:
        _check_takes(network, preprocess(probe.inputs[:2]), name, who)
    return Network(name, Tapped(network, classifier=classifier), preprocess)


def resolve(model: str) -> str:
    """The text that ``create_model`` reads, from that text itself, a run's folder, or a weights file that limbeck wrote.

    Raises:
        SettingError: a folder that is no finished run, or a file that does not say which network it is of.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / STUDENT).is_file():
            published = f" One of Hugging Face is named hf:{model}." if (path / "config.json").is_file() else ""
            raise SettingError(f"{model} is a folder without {STUDENT}; name the folder of a finished run.{published}")
        path = path / STUDENT
    elif path.suffix != ".safetensors" or not path.is_file():
        return model
    facts = read_card(path)
    if "model" not in facts:
        raise SettingError(f"{path} does not say which network its weights are of; write NAME@{path}.")
    return f"{facts['model']}@{path}"


def _create(model: str, who: str, data: ImageData, image_size: int | None) -> CreatedModel:
    try:
        text = resolve(model)
        side = card_side(read_card(parse_spec(text).weights or "")) or image_size or max(data.image_size)
        created = create_model(text, num_classes=len(data.classes), in_channels=data.in_channels, image_size=side)
    except LimbeckError as error:
        raise type(error)(f"{who}: {error}") from None
    _check_order(read_card(created.weights or ""), data, created.name, who)
    if who == "teacher" and created.new_classifier:
        raise WeightsError(
            f"teacher: the published weights of {created.name} are for other classes than the {len(data.classes)} of "
            f"{data.name}, so its classifier would be random; fine-tune it first with 'limbeck train --model {model}'."
        )
    return created


def _check_order(facts: Mapping[str, Any], data: ImageData, name: str, who: str) -> None:
    """Weights that know the names of their classes must have them in the order of the data's."""
    known = [str(each) for each in facts.get("classes") or ()]
    if sorted(known) == sorted(data.classes) and known != list(data.classes):
        first = next(number for number, pair in enumerate(zip(known, data.classes, strict=True)) if pair[0] != pair[1])
        raise WeightsError(
            f"{who}: {name} was trained on the same classes in another order: class {first} is '{known[first]}' there and "
            f"'{data.classes[first]}' in {data.name}."
        )


def _declared_input(network: nn.Module, who: str) -> InputSpec | None:
    declared = getattr(network, "input_spec", None)
    if declared is not None and not isinstance(declared, InputSpec):
        raise SettingError(
            f"{who}: input_spec of {type(network).__name__} must be a limbeck.models.InputSpec(mean, std, size, "
            f"interpolation), got {type(declared).__name__}."
        )
    return declared


def _classifier(network: nn.Module, inputs: torch.Tensor, name: str, who: str) -> str:
    try:
        return find_classifier(network, inputs)
    except LimbeckError as error:
        raise type(error)(f"{who}: {error}") from None
    except Exception as error:  # the network's own code raises what it likes
        raise _cannot_take(error, inputs, name, who) from error


def _check_takes(network: nn.Module, inputs: torch.Tensor, name: str, who: str) -> None:
    try:
        _forward(network, inputs)
    except Exception as error:  # the network's own code raises what it likes
        raise _cannot_take(error, inputs, name, who) from error


def _forward(network: nn.Module, inputs: torch.Tensor) -> None:
    with evaluating(network), torch.no_grad():
        network(inputs)


def _cannot_take(error: Exception, inputs: torch.Tensor, name: str, who: str) -> SettingError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    shape = tuple(getattr(inputs, "shape", ()))
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return SettingError(f"{who}: {name} cannot take an input of shape {shape} ({said}).")


def _preprocess(data: ImageData, spec: InputSpec | None, image_size: int | None) -> Preprocess:
    size = (image_size, image_size) if image_size else (spec.size if spec is not None else None)
    spec = spec or InputSpec(data.mean, data.std, None, "bilinear")
    # The channels are always named: settings that do the same must be equal to be shared.
    return Preprocess(spec.mean, spec.std, size, spec.interpolation, max(len(spec.mean), data.in_channels))


def _with_colours(network: nn.Module, preprocess: Preprocess, images: torch.Tensor) -> Preprocess:
    """The preprocessing, with grey images repeated when the network's first convolution takes three channels."""
    mean, std, size, interpolation, channels = preprocess.settings
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if channels != 1 or first is None or first.in_channels != _COLOURS:
        return preprocess
    try:
        _forward(network, preprocess(images))
    except Exception:  # as it should; a network that repeats the images itself does not come here
        # One number for each channel, so that the file's card tells how many there are.
        return Preprocess(mean * _COLOURS, std * _COLOURS, size, interpolation, _COLOURS)
    return preprocess


def checkpoint_gradients(network: nn.Module, name: str) -> None:
    """Trade time for memory in a network that knows how; SettingError for one that does not."""
    # timm; transformers from 5.2x on; transformers before
    for method in ("set_grad_checkpointing", "activation_checkpointing_enable", "gradient_checkpointing_enable"):
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
    return {"format": "pt", CARD: json.dumps(facts)}


def read_card(path: Path | str) -> dict[str, Any]:
    """What :func:`card` wrote into a safetensors file; empty for other files."""
    path = Path(path).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get(CARD, "{}"))
            return facts
    except (SafetensorError, json.JSONDecodeError, OSError):
        return {}


def card_side(facts: Mapping[str, Any]) -> int | None:
    """The side of the images that a card's network was built for, as ``create_model`` takes it; None where unsaid."""
    size = (facts.get("input") or {}).get("size") or facts.get("image_size")
    return max(map(int, size)) if size else None


def card_input(facts: Mapping[str, Any]) -> InputSpec | None:
    """The input that a card tells of; None where it tells of none."""
    known = facts.get("input")
    if not known:
        return None
    size = None if known["size"] is None else (int(known["size"][0]), int(known["size"][1]))
    return InputSpec(tuple(known["mean"]), tuple(known["std"]), size, known["interpolation"])


def _input_at_its_size(facts: Mapping[str, Any], data: ImageData) -> InputSpec | None:
    spec, side = card_input(facts), facts.get("image_size")
    if spec is None or spec.size is not None or side in (None, list(data.image_size)):
        return spec
    return replace(spec, size=(int(side[0]), int(side[1])))

"""What is exported: a network with its weights, its classes, and the images it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.config import DataSettings, ExportSettings
from limbeck.data import ImageData, Preprocess
from limbeck.errors import SettingError
from limbeck.feeds import read_data
from limbeck.models import InputSpec, create_model
from limbeck.models.spec import PRETRAINED, ModelSpec, parse_spec
from limbeck.networks import card_input, card_side, read_card, resolve
from limbeck.taps import logits_of

Shape = tuple[int, int, int]


class Servable(nn.Module):
    """From images to logits: the network, with its preprocessing before it when that is part of the export."""

    def __init__(self, network: nn.Module, preprocess: nn.Module | None) -> None:
        super().__init__()
        self.network, self.preprocess = network, preprocess

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images if self.preprocess is None else self.preprocess(images)))


@dataclass(frozen=True)
class Subject:
    """A network to export.

    name: the text that makes it, without weights. create: the arguments of ``create_model`` that go with it.
    random: whether the weights are random. input: what is known of the images it was trained on. image, shape: (C, H, W)
    of the data's images, and of what the exported network takes. classes: their names, when known.
    """

    name: str
    network: nn.Module
    create: dict[str, int]
    random: bool
    input: InputSpec | None
    image: Shape
    shape: Shape
    preprocess: Preprocess | None
    num_classes: int
    classes: tuple[str, ...] | None
    data: str | None

    @property
    def servable(self) -> Servable:
        """What the files compute, in eval mode."""
        return Servable(self.network, self.preprocess).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the input: uint8 when the preprocessing is inside."""
        return torch.float32 if self.preprocess is None else torch.uint8

    def example(self, batch: int, seed: int = 0) -> Tensor:
        """Random images (batch, C, H, W) as the exported network takes them."""
        generator = torch.Generator().manual_seed(seed)
        if self.dtype == torch.uint8:
            return torch.randint(0, 256, (batch, *self.shape), generator=generator, dtype=torch.uint8)
        return torch.randn((batch, *self.shape), generator=generator)

    def metadata(self) -> dict[str, str]:
        """What every file says of itself; :func:`limbeck.networks.read_card` reads it from the safetensors file."""
        facts: dict[str, Any] = {"model": self.name, "data": self.data, "num_classes": self.num_classes}
        facts |= {"classes": self.classes, "input": None if self.input is None else asdict(self.input)}
        facts |= {"in_channels": self.image[0], "image_size": self.image[1:]}
        known = {key: value for key, value in facts.items() if value is not None}
        return {"format": "pt", "limbeck": json.dumps(known)}


def open_subject(settings: ExportSettings) -> Subject:
    """The network that the settings name, with what its file, its data set and the settings say of it.

    Raises:
        SettingError: two sources contradict each other, or something needed is said nowhere.
        WeightsError: the weights do not fit.
    """
    text = resolve(settings.model or "")
    parsed = parse_spec(text)
    facts = read_card(parsed.weights or "")
    data = _data(settings, facts)
    num_classes = _one("classes", settings.classes, _count(facts), None if data is None else len(data.classes))
    channels = _one("channels", settings.channels, facts.get("in_channels"), None if data is None else data.in_channels)
    size = _image_size(settings, facts, data)
    _check_classes_known(parsed, num_classes)
    # A network that must know its size is built for the one that its weights were trained at.
    side = card_side(facts) or (max(size) if size else None)
    known = {"num_classes": num_classes, "in_channels": channels, "image_size": side}
    create = {key: value for key, value in known.items() if value is not None}
    created = create_model(text, **create)
    spec = created.input or _input_of(facts, data)
    image = _image(channels, size, spec, created.name)
    inner = image if spec is None else (max(image[0], len(spec.mean)), *(spec.size or image[1:]))
    if settings.image_size is not None and not settings.include_preprocessing:
        inner = (inner[0], *image[1:])
    preprocess = _preprocess(spec, created.name) if settings.include_preprocessing else None
    network = created.network.eval().requires_grad_(False)
    return Subject(
        name=created.name,
        network=network,
        create=create,
        random=created.weights is None and parsed.source != "hf",
        input=spec,
        image=image,
        shape=inner if preprocess is None else image,
        preprocess=preprocess,
        num_classes=_outputs(network, inner, created.name),
        classes=_names(facts, data),
        data=facts.get("data") if data is None else data.name,
    )


def _check_classes_known(parsed: ModelSpec, num_classes: int | None) -> None:
    own_number = parsed.weights == PRETRAINED or parsed.source == "hf" or "num_classes" in parsed.arguments
    if num_classes is None and not own_number:
        raise SettingError(
            f"classes is not given, and nothing says how many {parsed.text} tells apart; give classes (their number) or data, "
            "or export a run's folder or a file that limbeck wrote."
        )


def _data(settings: ExportSettings, facts: Mapping[str, Any]) -> ImageData | None:
    if settings.data is None:
        return None
    data = read_data(DataSettings(data=settings.data, data_dir=settings.data_dir, image_size=settings.image_size))
    names = facts.get("classes")
    if names and list(names) != list(data.classes):
        raise SettingError(
            f"data is {settings.data}, and the model's file names other classes ({len(names)} of "
            f"{facts.get('data', 'another data set')}); leave data out to export it as it was trained."
        )
    return data


def _count(facts: Mapping[str, Any]) -> int | None:
    return len(facts["classes"]) if facts.get("classes") else facts.get("num_classes")


def _one(setting: str, given: int | None, in_file: int | None, of_data: int | None) -> int | None:
    """The first that is known; a setting that contradicts what is known is an error."""
    known = in_file if in_file is not None else of_data
    if given is not None and known is not None and given != known:
        where = "the model's file" if in_file is not None else "the data set"
        raise SettingError(f"{setting} is {given}, and {where} says {known}; leave it out.")
    return given if known is None else known


def _names(facts: Mapping[str, Any], data: ImageData | None) -> tuple[str, ...] | None:
    names = facts.get("classes") or (data.classes if data is not None else None)
    return tuple(names) if names else None


def _image_size(settings: ExportSettings, facts: Mapping[str, Any], data: ImageData | None) -> tuple[int, int] | None:
    if settings.image_size is not None:
        return settings.image_size, settings.image_size
    size = facts.get("image_size") or (None if data is None else data.image_size)
    return None if size is None else (int(size[0]), int(size[1]))


def _input_of(facts: Mapping[str, Any], data: ImageData | None) -> InputSpec | None:
    of_data = None if data is None else InputSpec(data.mean, data.std, None, "bilinear")
    return card_input(facts) or of_data


def _image(channels: int | None, size: tuple[int, int] | None, spec: InputSpec | None, name: str) -> Shape:
    size = size or (spec.size if spec is not None else None)
    if size is None:
        raise SettingError(
            f"image_size is not given, and nothing says which images {name} is for; give image_size (their side in pixels) or "
            "data, or export a run's folder or a file that limbeck wrote."
        )
    # 3 is create_model's own default when no channels are named.
    return (channels or 3, *size)


def _preprocess(spec: InputSpec | None, name: str) -> Preprocess:
    if spec is None:
        raise SettingError(
            f"include_preprocessing is set, and nothing says how the images of {name} are normalised; give data, or export a "
            "run's folder or a file that limbeck wrote."
        )
    return Preprocess(spec.mean, spec.std, spec.size, spec.interpolation, len(spec.mean))


def _outputs(network: nn.Module, shape: Shape, name: str) -> int:
    """The number of logits, from one pass, so that a shape that the network cannot take is an error here."""
    try:
        with torch.no_grad():
            return int(logits_of(network(torch.zeros(1, *shape))).shape[-1])
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingError(f"{name} cannot take an image of shape {shape}: {reason}") from None

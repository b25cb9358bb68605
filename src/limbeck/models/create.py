"""Makes a network from the text that names it, and lists what can be named."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from limbeck.errors import SettingError, unknown_name
from limbeck.models.sources import InputSpec, Request, sources
from limbeck.models.spec import PRETRAINED, check_classes, check_positive, check_reserved, parse_spec
from limbeck.models.weights import load_weights


@dataclass(frozen=True)
class CreatedModel:
    """A network and where it comes from.

    name: the text that names it, without the weights.
    weights: ``pretrained``, the path of a file, or None for random ones.
    input: what published weights were trained on; None when the source does not know.
    new_classifier: True when published weights had another number of classes, so that the classifier is random: a
        student may start so, a teacher has nothing to teach.
    """

    network: nn.Module
    name: str
    weights: str | None
    input: InputSpec | None
    new_classifier: bool = False


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be named; ``parameters`` are known for the zoo and for ``language``.

    The zoo's are counted for RGB images and 100 classes, those of language models for 32,000 tokens.
    """

    source: str
    name: str
    parameters: int | None


def create_model(
    spec: str, *, num_classes: int | None = None, in_channels: int = 3, image_size: int | None = None
) -> CreatedModel:
    """A network from ``[SOURCE:]NAME[(keyword=literal, …)][@WEIGHTS]``.

    Sources are the zoo (no prefix needed), ``timm``, ``torchvision``, ``hf`` and any importable ``module:factory``.
    Weights are a file or ``pretrained``, the source's own. Without them the network starts at random; only ``hf`` takes
    its own then.

    Args:
        spec: such as ``resnet8x4@teacher.safetensors`` or ``timm:resnet18(drop_rate=0.1)``.
        num_classes: classes of the data; None for the source's default.
        in_channels: channels of the data's images.
        image_size: side of the data's images; used by networks without published weights that must know it.

    Raises:
        SettingError: the text, a name, an argument or a number cannot be used.
        WeightsError: the weights cannot be read or fetched, or do not fit.
        MissingExtraError: the source needs a package that is not installed.
    """
    parsed = parse_spec(spec)
    source = sources()[parsed.source]
    numbers = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    check_positive({name: parsed.arguments.get(name, number) for name, number in numbers.items()})
    check_reserved(parsed, source.reserved)
    check_classes(parsed, num_classes)
    file = parsed.weights if parsed.weights != PRETRAINED else None
    request = Request(
        name=parsed.name,
        arguments=parsed.arguments,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        pretrained=parsed.weights == PRETRAINED,
        weights_follow=file is not None,
    )
    built = source.build(request)
    if file is not None:
        load_weights(built.network, file, setting=parsed.text)
    return CreatedModel(built.network, parsed.text, parsed.weights, built.input, built.new_classifier)


def list_models(pattern: str | None = None) -> list[ModelEntry]:
    """The networks whose ``name`` or ``source:name`` matches a pattern such as ``resnet*``, ``timm:*`` or ``vit``.

    A pattern without ``*``, ``?`` or ``[`` matches anywhere in the name. A pattern with a source asks only that one.

    Raises:
        SettingError: no source has the name before the colon.
    """
    wanted = pattern or "*"
    if not any(sign in wanted for sign in "*?["):
        wanted = f"{wanted}*" if ":" in wanted else f"*{wanted}*"
    asked, colon, name_pattern = wanted.rpartition(":")
    asked_sources = [source for name, source in sources().items() if not colon or fnmatchcase(name, asked)]
    if not asked_sources:
        raise SettingError(unknown_name("model source", asked, sources()))
    return [
        ModelEntry(source.name, name, source.parameters(name))
        for source in asked_sources
        for name in source.names()
        if fnmatchcase(name, name_pattern)
    ]

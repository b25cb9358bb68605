"""What a model source is, and the sentences that all sources share."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from limbeck.errors import SettingError, WeightsError, nearest, unknown_name

Task = Literal["causal", "classification", "encoder"]
"""What a language model answers with: logits of the next token, logits of classes, or hidden states alone."""


@dataclass(frozen=True)
class InputSpec:
    """The images that published weights were trained on.

    mean, std: one number a channel, of pixels in [0, 1].
    size: (height, width) in pixels; None when any size serves.
    interpolation: how images were resized, such as ``bicubic``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    interpolation: str


@dataclass(frozen=True)
class Request:
    """What a source is asked to build.

    name: the network's name in this source.
    arguments: keyword arguments the user wrote; they win over the fields below.
    num_classes: outputs of the classifier; None for the source's own number.
    in_channels: channels of the images.
    image_size: side of the data's images in pixels, for networks that must know it; None when unknown.
    pretrained: whether the source's published weights are wanted.
    weights_follow: whether weights of a file will be put in afterwards.
    """

    name: str
    arguments: Mapping[str, Any]
    num_classes: int | None
    in_channels: int
    image_size: int | None
    pretrained: bool
    weights_follow: bool

    @property
    def classes(self) -> int | None:
        """The number of classes, wherever it was written."""
        number: int | None = self.arguments.get("num_classes", self.num_classes)
        return number


@dataclass(frozen=True)
class Built:
    """What a source gives back.

    new_classifier: True when published weights had another number of classes, so that the classifier starts at random.
    """

    network: nn.Module
    input: InputSpec | None = None
    new_classifier: bool = False


@dataclass(frozen=True)
class LanguageRequest:
    """What a source is asked to build for text.

    name, arguments: as in :class:`Request`.
    task: what the network answers with.
    vocabulary: tokens of the data's tokenizer; None for the source's own number.
    num_classes: outputs of a classifier, 1 for regression; None for the source's own number.
    context: positions that the network must have; None for the source's own number.
    published: whether the source's own weights are wanted; None where nobody said.
    dtype: of the weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what the file holds.
    """

    name: str
    arguments: Mapping[str, Any]
    task: Task
    vocabulary: int | None
    num_classes: int | None
    context: int | None
    published: bool | None
    dtype: str = "float32"

    @property
    def classes(self) -> int | None:
        """The number of classes, wherever it was written."""
        number: int | None = self.arguments.get("num_classes", self.num_classes)
        return number


@dataclass(frozen=True)
class BuiltLanguage:
    """What a source gives back for text.

    published: whether the source's own weights are in it.
    tokenizer_folder: folder or name with its tokenizer; None where the source has none.
    new_classifier: True when the weights had no classifier of this many classes, so that it starts at random.
    """

    network: nn.Module
    published: bool = False
    tokenizer_folder: str | None = None
    new_classifier: bool = False


class Source(ABC):
    """A place that builds networks by name.

    name: what the model's text begins with, before the colon.
    reserved: arguments nobody may write, with the sentence that says what to write instead.
    names_are_folders: whether a name may be a folder's path, with any character in it.
    """

    name: ClassVar[str]
    reserved: ClassVar[Mapping[str, str]] = {}
    names_are_folders: ClassVar[bool] = False

    @abstractmethod
    def build(self, request: Request) -> Built:
        """The network; raises SettingError for a name or argument that does not exist, WeightsError without weights."""

    def build_language(self, request: LanguageRequest) -> BuiltLanguage:
        """The language model; raises as :meth:`build` does, and SettingError in a source that has none."""
        raise SettingError(
            f"{self.name}:{request.name} is no language model. Those are hf:NAME, hf:FOLDER, MODULE:FACTORY and the ones "
            "that 'limbeck list models language:*' names."
        )

    def language_task(self, name: str, arguments: Mapping[str, Any]) -> Task:
        """What a language model was made to answer with, where nobody says."""
        return "causal"

    def tokenizer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The tokenizer that belongs to a language model; raises SettingError where there is none."""
        raise SettingError(
            f"{self.name}:{name} has no tokenizer of its own; name the folder or model of one, as in hf:FOLDER."
        )

    def names(self) -> Sequence[str]:
        """Names that ``limbeck list models`` shows; none when they cannot be counted."""
        return ()

    def parameters(self, name: str) -> int | None:
        """The number of parameters of a network, or None when only building it would tell."""
        return None

    def unknown(self, name: str, hint: str = "") -> SettingError:
        """The error for a name that is not among :meth:`names`."""
        names = self.names()
        guess = nearest(name, names)
        return SettingError(
            f"{self.name} has no model '{name}'{f'; did you mean {guess!r}?' if guess else '.'} "
            f"'limbeck list models {self.name}:*' lists all {len(names)}.{' ' + hint if hint else ''}"
        )


def check_arguments(label: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise SettingError unless ``factory`` can be called with ``arguments``."""
    parameters = inspect.signature(factory).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    accepted = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for argument in arguments:
        if argument not in accepted and not open_ended:
            raise SettingError(unknown_name(f"argument of {label}", argument, accepted))
    needed = [p.name for p in parameters if p.name in accepted and p.default is p.empty and p.name not in arguments]
    if needed:
        raise SettingError(f"{label} needs the argument{'s' * (len(needed) > 1)} {', '.join(needed)}.")


def call_builder(label: str, builder: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """``builder(**arguments)`` for a builder that hands its keywords on to a class that it alone knows.

    Raises:
        SettingError: a keyword that the class does not accept, with those that it does; or a value it refuses.
    """
    try:
        return builder(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unexpected is None or unexpected[1] not in arguments:
            given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise SettingError(f"{label} cannot be built with {given}: {error}") from error
        accepted = _accepted_by_class(builder)
        raise SettingError(unknown_name(f"argument of {label}", unexpected[1], accepted)) from None


def _accepted_by_class(builder: Callable[..., nn.Module]) -> list[str]:
    # The class shows itself only in what is built; on the meta device that costs no memory.
    with torch.device("meta"):
        cls = type(builder())
    parameters = inspect.signature(cls).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is not parameter.empty]


def no_published_weights(label: str) -> WeightsError:
    """The error for ``@pretrained`` where the source publishes no weights."""
    return WeightsError(f"{label} has no published weights; give a file instead, as in {label}@weights.safetensors.")


def unreachable_weights(label: str, error: Exception) -> WeightsError:
    """The error for published weights that did not arrive."""
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return WeightsError(
        f"the published weights of {label} could not be fetched ({type(error).__name__}: {reason.rstrip('.')}). Is the "
        f"name right, and is there a network connection? Without one, download them elsewhere and write {label}@FILE."
    )

"""Image classifiers and language models of Hugging Face transformers, from the hub or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.errors import SettingError
from limbeck.models.sources.base import (
    Built,
    BuiltLanguage,
    InputSpec,
    LanguageRequest,
    Request,
    Source,
    Task,
    unreachable_weights,
)
from limbeck.models.sources.registry import register_source
from limbeck.models.sources.transformers_config import WHERE, folder_of, import_transformers, read_config

_NO_REMOTE_CODE = "code from the hub is never run; install it and write MODULE:FACTORY"


@register_source
class HuggingFaceSource(Source):
    """``hf:google/vit-base-patch16-224``, ``hf:path/to/folder(hidden_dropout_prob=0.1)``, and language models alike.

    Published weights are the default; ``@FILE`` builds the network from its configuration and takes a file's weights.
    """

    name = "hf"
    names_are_folders = True
    reserved = {
        "trust_remote_code": _NO_REMOTE_CODE,
        "code_revision": _NO_REMOTE_CODE,
        "num_labels": "write num_classes=N",
    }

    def build(self, request: Request) -> Built:
        auto = import_transformers("a model of hf:").AutoModelForImageClassification
        label = f"hf:{request.name}"
        folder = folder_of(request.name)
        where = {name: value for name, value in request.arguments.items() if name in WHERE}
        config = _config(label, folder, where, request)
        try:
            if request.weights_follow:
                network = auto.from_config(config, trust_remote_code=False)
                return Built(network, _input_spec(folder, where))
            network, loaded = auto.from_pretrained(
                folder,
                config=config,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **where,
            )
        except OSError as error:
            raise unreachable_weights(label, error) from error
        except ValueError as error:
            raise SettingError(f"{label} is not an image classifier that transformers can build: {error}") from error
        new = bool(loaded["missing_keys"] or loaded["mismatched_keys"])
        return Built(network, _input_spec(folder, where), new)

    def build_language(self, request: LanguageRequest) -> BuiltLanguage:
        from limbeck.models.language.published import build_published

        return build_published(request)

    def language_task(self, name: str, arguments: Mapping[str, Any]) -> Task:
        from limbeck.models.language.published import published_task

        return published_task(name, arguments)

    def tokenizer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        from limbeck.models.language.published import published_tokenizer

        return published_tokenizer(name, arguments)


def _config(label: str, folder: str, where: dict[str, Any], request: Request) -> Any:
    changes = {name: value for name, value in request.arguments.items() if name not in (*WHERE, "num_classes")}
    config = read_config(label, folder, where, changes)
    channels = getattr(config, "num_channels", request.in_channels)
    if channels != request.in_channels:
        raise SettingError(f"{label} takes images of {channels} channels, the data has {request.in_channels}.")
    # Asked for only when it differs, since it replaces the names of the classes.
    if request.classes not in (None, config.num_labels):
        config.num_labels = request.classes
    return config


def _input_spec(folder: str, where: dict[str, Any]) -> InputSpec | None:
    from PIL.Image import Resampling
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, **where)
    except OSError:
        return None
    if processor.do_normalize:
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    resample = Resampling.BILINEAR if processor.resample is None else Resampling(int(processor.resample))
    return InputSpec(mean, std, _size(processor), resample.name.lower())


def _size(processor: Any) -> tuple[int, int] | None:
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if size is None:
        return None
    if size.get("height"):
        return size["height"], size["width"]
    return (size["shortest_edge"],) * 2 if size.get("shortest_edge") else None

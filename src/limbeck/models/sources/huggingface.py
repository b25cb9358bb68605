"""Image classifiers of Hugging Face transformers, from the hub or a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from limbeck.errors import MissingExtraError, SettingError, unknown_name
from limbeck.models.sources.base import Built, InputSpec, Request, Source, unreachable_weights
from limbeck.models.sources.registry import register_source

_WHERE = ("revision", "subfolder", "cache_dir", "local_files_only")
_NO_REMOTE_CODE = "code from the hub is never run; install it and write MODULE:FACTORY"


@register_source
class HuggingFaceSource(Source):
    """``hf:google/vit-base-patch16-224``, ``hf:path/to/folder(hidden_dropout_prob=0.1)``.

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
        try:
            from transformers import AutoModelForImageClassification
        except ImportError:
            raise MissingExtraError("transformers", "text", "a model of hf:") from None

        label = f"hf:{request.name}"
        folder = str(Path(request.name).expanduser()) if request.name.startswith("~") else request.name
        where = {name: value for name, value in request.arguments.items() if name in _WHERE}
        config = _config(label, folder, where, request)
        try:
            if request.weights_follow:
                network = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
                return Built(network, _input_spec(folder, where))
            network, loaded = AutoModelForImageClassification.from_pretrained(
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


def _config(label: str, folder: str, where: dict[str, Any], request: Request) -> Any:
    from transformers import AutoConfig

    read = partial(AutoConfig.from_pretrained, folder, trust_remote_code=False, **where)
    try:
        config = read()
    except OSError as error:
        raise unreachable_weights(label, error) from error
    except ValueError as error:
        raise SettingError(f"{label} is not a model that transformers can build: {error}") from error
    accepted = sorted({*config.to_dict(), *_WHERE})
    changes = {name: value for name, value in request.arguments.items() if name not in (*_WHERE, "num_classes")}
    for name in changes:
        if name not in accepted:
            raise SettingError(unknown_name(f"argument of {label}", name, accepted))
    channels = getattr(config, "num_channels", request.in_channels)
    if channels != request.in_channels:
        raise SettingError(f"{label} takes images of {channels} channels, the data has {request.in_channels}.")
    # Asked for only when it differs, since it replaces the names of the classes.
    if request.classes not in (None, config.num_labels):
        changes["num_labels"] = request.classes
    return read(**changes)


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

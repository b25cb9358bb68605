"""Published language models: those of Hugging Face transformers, from the hub or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from limbeck.errors import MissingExtraError, SettingError, WeightsError
from limbeck.models.language.adapter_folder import base_of, has_adapter, has_tokenizer, merged_with
from limbeck.models.language.architectures import CLASSES
from limbeck.models.language.layers import keep_layers
from limbeck.models.sources.base import BuiltLanguage, LanguageRequest, Task, unreachable_weights
from limbeck.models.sources.transformers_config import WHERE, dtype_of, folder_of, import_transformers, read_config
from limbeck.models.spec import PRETRAINED, parse_spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILES = (*WHERE, "gguf_file")
_OURS = (*_FILES, "base", "dtype", "attn_implementation", "keep_layers", "num_classes")
_SHOWN = 4


def build_published(request: LanguageRequest) -> BuiltLanguage:
    """A language model that transformers knows.

    A folder with adapters (LoRA of peft, safetensors) is its base with them in its weights; ``base`` names the base where the
    folder's own word for it is no longer right.

    ``hf:NAME-OR-FOLDER`` takes arguments of its configuration, and besides: ``gguf_file`` (its weights as GGUF), ``dtype``
    (``float32``, ``bfloat16``, ``float16`` or ``auto``), ``attn_implementation`` as transformers names it, ``keep_layers`` (see
    :func:`limbeck.models.language.keep_layers`), and ``revision``, ``subfolder``, ``cache_dir`` and ``local_files_only``, which
    say where its files are.

    Raises:
        SettingError, WeightsError, MissingExtraError: see :func:`limbeck.models.language.create_language_model`.
    """
    label, folder = f"hf:{request.name}", folder_of(request.name)
    if has_adapter(folder):
        return _with_adapter(label, folder, request)
    transformers = import_transformers(f"the language model {label}")
    where = _where(request.arguments)
    config = _config(label, folder, where, request)
    arguments = {"dtype": dtype_of(str(request.arguments.get("dtype", request.dtype)), config)}
    arguments |= {name: request.arguments[name] for name in ("attn_implementation",) if name in request.arguments}
    auto = getattr(transformers, CLASSES[request.task])
    published = request.published is not False
    new_classifier = False
    try:
        if published:
            network, loaded = auto.from_pretrained(
                folder,
                config=config,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **where,
                **_unpacked(transformers, where),
                **arguments,
            )
            _forget_packing(network)
            new_classifier = _check_loaded(label, request.task, network, loaded)
        else:
            network = auto.from_config(config, trust_remote_code=False, **arguments)
    except OSError as error:
        raise unreachable_weights(label, error) from error
    except ValueError as error:
        if isinstance(error, WeightsError):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        raise SettingError(
            f"{label} cannot be built by transformers for the task '{request.task}': {reason}"
        ) from error
    if "keep_layers" in request.arguments:
        network = keep_layers(network, request.arguments["keep_layers"])
    return BuiltLanguage(network, published, folder, new_classifier)


def _with_adapter(label: str, folder: str, request: LanguageRequest) -> BuiltLanguage:
    if request.published is False:
        raise SettingError(f"{label} is a folder of adapters, which are for the weights of their base: leave '@' out.")
    name, arguments = base_of(label, folder, request.arguments)
    after = {key: arguments.pop(key) for key in ("keep_layers",) if key in arguments}
    built = build_published(replace(request, name=name, arguments=arguments))
    network, has_classifier = merged_with(label, folder, built.network)
    if after:
        network = keep_layers(network, after["keep_layers"])
    tokenizer = folder if has_tokenizer(folder) else built.tokenizer_folder
    return replace(
        built, network=network, tokenizer_folder=tokenizer, new_classifier=built.new_classifier and not has_classifier
    )


def published_name(spec: str) -> str | None:
    """The name or folder of the published network that a text is of, unchanged; None for any other text."""
    parsed = parse_spec(spec, unprefixed="language")
    changed = "keep_layers" in parsed.arguments or parsed.weights not in (None, PRETRAINED)
    return None if parsed.source != "hf" or changed or has_adapter(folder_of(parsed.name)) else parsed.name


def published_task(name: str, arguments: Mapping[str, Any]) -> Task:
    """What a published model was made for, as its configuration says; GGUF files are of models that write text.

    Raises:
        SettingError, WeightsError, MissingExtraError: see :func:`limbeck.models.language.create_language_model`.
    """
    import_transformers(f"the language model hf:{name}")
    if has_adapter(folder_of(name)):
        return published_task(*base_of(f"hf:{name}", folder_of(name), arguments))
    where = _where(arguments)
    if "gguf_file" in where:
        return "causal"
    classes = read_config(f"hf:{name}", folder_of(name), where, {}).architectures or [""]
    endings: Mapping[str, Task] = {
        "ForCausalLM": "causal",
        "LMHeadModel": "causal",
        "ForSequenceClassification": "classification",
    }
    return next((task for ending, task in endings.items() if classes[0].endswith(ending)), "encoder")


def published_tokenizer(name: str, arguments: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of a published model. Code from the hub is never run.

    Raises:
        SettingError: there is none, or it cannot be read.
        MissingExtraError: transformers or gguf is not installed.
    """
    transformers = import_transformers(f"the tokenizer of hf:{name}")
    if has_adapter(folder_of(name)) and not has_tokenizer(folder_of(name)):
        return published_tokenizer(*base_of(f"hf:{name}", folder_of(name), arguments))
    where = _where(arguments)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of(name), trust_remote_code=False, **where)
    except Exception as error:  # tokenizers of many kinds are read by many libraries, each with errors of its own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if Path(folder_of(name)).is_dir() and not has_tokenizer(folder_of(name)):
            reason = "none of its files is one"
        raise SettingError(
            f"hf:{name} has no tokenizer that transformers can read ({reason.strip().rstrip(':.')}). Is its tokenizer.json "
            "there? Name the folder or model of another one, as in hf:FOLDER."
        ) from error
    # Some families make one without a vocabulary where its file is missing.
    if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
        raise SettingError(
            f"hf:{name} has no tokenizer: there is no vocabulary. Name the folder of another, as in hf:FOLDER."
        )
    return tokenizer


def _where(arguments: Mapping[str, Any]) -> dict[str, Any]:
    where = {name: value for name, value in arguments.items() if name in _FILES}
    if "gguf_file" in where and find_spec("gguf") is None:
        raise MissingExtraError("gguf", "text", f"reading {where['gguf_file']}")
    return where


def _unpacked(transformers: Any, where: Mapping[str, Any]) -> dict[str, Any]:
    # Where kernels for them are installed, transformers would leave weights in blocks that cannot be trained.
    config = getattr(transformers, "GgufConfig", None)
    if "gguf_file" not in where or config is None:
        return {}
    return {"quantization_config": config(dequantize=True, gguf_file=where["gguf_file"])}


def _forget_packing(network: Any) -> None:
    """What was unpacked is a network like others, which may be trained and written."""
    packed = getattr(network.config, "quantization_config", None)
    if getattr(packed, "dequantize", False):
        network.hf_quantizer.remove_quantization_config(network)


def _config(label: str, folder: str, where: Mapping[str, Any], request: LanguageRequest) -> Any:
    changes = {name: value for name, value in request.arguments.items() if name not in _OURS}
    config = read_config(label, folder, where, changes, _OURS)
    if config.is_encoder_decoder:
        raise SettingError(f"{label} is an encoder with a decoder; limbeck takes decoders and encoders alone.")
    # Asked for only when it differs, since it replaces the names of the classes.
    if request.classes not in (None, config.num_labels):
        config.num_labels = request.classes
    return config


def _check_loaded(label: str, task: Task, network: nn.Module, loaded: Mapping[str, Any]) -> bool:
    """Whether the classifier is new; anything else that the weights lack is an error, since it would be random."""
    found = [*loaded["missing_keys"], *loaded["mismatched_keys"]]
    names = sorted(name if isinstance(name, str) else name[0] for name in found)
    lacking = [name for name in names if not _may_be_new(name, task, str(network.base_model_prefix))]
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise WeightsError(
            f"{label} has no weights of the right shape for {', '.join(lacking[:_SHOWN])}{more}, which "
            f"{type(network).__name__} needs. It was published for something else than the task '{task}', or an argument "
            f"changes its shape; {label}@random starts from random weights."
        )
    return bool(names)


def _may_be_new(name: str, task: Task, base: str) -> bool:
    # A pooler belongs to what was trained on top of an encoder, and is in its module all the same.
    pooled = "pooler" in name.split(".")
    return task != "causal" and (pooled or (task == "classification" and not name.startswith(f"{base}.")))

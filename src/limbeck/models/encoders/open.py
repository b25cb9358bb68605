"""Encoders from folders of sentence-transformers and Hugging Face."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from limbeck.errors import MissingExtraError, SettingError, WeightsError, check_choice
from limbeck.models.encoders.encoder import Encoder
from limbeck.models.encoders.quiet import quiet

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
_NAMESPACE = "sentence_transformers."


def is_pipeline(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of sentence-transformers, which says itself how it pools and what it puts before a text."""
    return (Path(folder).expanduser() / "modules.json").is_file()


def open_encoder(folder: str | os.PathLike[str], *, pooling: Pooling | None = None, device: str = "cpu") -> Encoder:
    """An encoder of a folder; nothing is downloaded, unpickled or executed.

    folder: as sentence-transformers saves it (with ``modules.json``), whose pooling, layers, scaling, prompts, length and
        similarity hold; or an encoder of Hugging Face (with ``config.json``), whose token vectors are pooled.
    pooling: for an encoder of Hugging Face alone, by the names of sentence-transformers; ``mean`` where it is None.

    Raises:
        WeightsError: there is no such folder, its weights are no safetensors, it asks for code of its own, or for a part that
            is not Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout.
        SettingError: a pooling for a folder that has its own, or an unknown one.
        MissingExtraError: sentence-transformers is not installed.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise WeightsError(f"there is no folder '{path}' with an encoder in it.")
    if pooling is not None:
        check_choice("pooling", pooling, get_args(Pooling))
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "retrieval", f"the encoder '{path}'") from error
    whole = is_pipeline(path)
    if whole and pooling is not None:
        raise SettingError(f"'{path}' says itself how it pools; leave pooling out.")
    folders = _checked_folders(path) if whole else [path]
    for one in folders:
        check_weights(one)
    check_config(path / "config.json")
    with quiet():
        if whole:
            model = sentence_transformers.SentenceTransformer(
                str(path), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        else:
            model = _pooled(path, pooling or "mean", device)
    _check_prompts(path, model)
    return Encoder(model)


def _pooled(path: Path, pooling: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule
    from sentence_transformers.sentence_transformer.modules import Transformer

    quiet = {"local_files_only": True}
    body = Transformer(
        str(path),
        model_kwargs={**quiet, "use_safetensors": True},
        processor_kwargs=dict(quiet),
        config_kwargs=dict(quiet),
    )
    modules = [body, PoolingModule(body.get_embedding_dimension(), pooling)]
    return SentenceTransformer(modules=modules, device=device, local_files_only=True)


def _checked_folders(path: Path) -> list[Path]:
    """The folders of a pipeline's parts, each of a known kind."""
    parts = _json(path / "modules.json")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise WeightsError(f"'{path / 'modules.json'}' must be a list of the pipeline's parts.")
    folders = []
    for part in parts:
        kind = str(part.get("type", ""))
        if not kind.startswith(_NAMESPACE) or kind.rpartition(".")[2] not in _MODULES:
            raise WeightsError(
                f"'{path}' has a part '{kind}', and limbeck opens encoders made of {', '.join(_MODULES)} of "
                "sentence-transformers alone; code that comes with a folder is never run."
            )
        inside = (path / str(part.get("path", ""))).resolve()
        if not inside.is_relative_to(path.resolve()):
            raise WeightsError(f"'{path}' names a part outside of it: '{part.get('path')}'.")
        folders.append(inside)
    return folders


def check_weights(folder: Path) -> None:
    """Raise WeightsError for a folder whose weights are a pickle."""
    pickled = [*folder.glob("pytorch_model*.bin")]
    if pickled and not [*folder.glob("model*.safetensors")]:
        raise WeightsError(
            f"'{pickled[0]}' is a pickle, which may run code when it is read; save the model as safetensors, as with "
            "model.save_pretrained(folder, safe_serialization=True)."
        )


def check_config(path: Path) -> Mapping[str, Any]:
    """What a config.json says. Raises WeightsError where there is none, or where it asks for code of its own."""
    if not path.is_file():
        raise WeightsError(f"there is no '{path}', which tells what network it is.")
    config = _json(path)
    if isinstance(config, Mapping) and config.get("auto_map"):
        raise WeightsError(f"'{path}' asks for code that comes with the folder (auto_map), which is never run.")
    return config if isinstance(config, Mapping) else {}


def _check_prompts(path: Path, model: Any) -> None:
    left_out = any(getattr(module, "include_prompt", True) is False for module in model.children())
    if left_out and any(model.prompts.values()):
        raise WeightsError(f"'{path}' leaves its prompt out of the pooling (include_prompt), which limbeck cannot do.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"'{path}' cannot be read as JSON: {error}") from error

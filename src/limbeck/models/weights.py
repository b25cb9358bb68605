"""Weights files: read without running code, checked in full before a network changes, written whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import WeightsError, nearest
from limbeck.files import atomic_path

State = dict[str, Tensor]

_NESTINGS = ("model", "state_dict", "model_state_dict", "net", "student", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
_SHARED = "limbeck.shared"
_LISTED = 10
_NOT_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; fetch it with: git lfs pull",
    b"<!DOCTYPE": "is a web page and not weights; download the file itself",
    b"<html": "is a web page and not weights; download the file itself",
}


def load_state(path: str | os.PathLike[str]) -> State:
    """The tensors of a weights file by name, on the CPU.

    ``.safetensors`` is read by safetensors, ``.pth .pt .th .bin .ckpt`` by ``torch.load(weights_only=True)``; neither
    runs code. A checkpoint that holds its weights under ``model``, ``state_dict`` and the like is unwrapped.

    Raises:
        WeightsError: the file is missing, a folder, empty, damaged, of another kind, without weights in it, or a pickle
            that needs more than tensors; the message then holds the lines that convert it.
    """
    file = Path(path).expanduser()
    _check_file(file)
    return _unwrapped(_READERS[file.suffix.lower()](file), str(file))


def load_weights(network: nn.Module, path: str | os.PathLike[str], *, setting: str = "weights") -> None:
    """Put the weights of a file into a network, all of them or none.

    Wrapper prefixes (``module.``, ``_orig_mod.``, ``model.``, ``network.``) are taken off where that makes names fit, and a
    network with ``public_names`` renames those of public benchmarks' checkpoints. Floating types are converted to the
    network's.

    Args:
        network: changed in place, and only when everything fits.
        path: see :func:`load_state`.
        setting: what the messages begin with.

    Raises:
        WeightsError: the file cannot be read; or names are missing, unexpected or of another shape; or weights are not
            floating point numbers where the network's are, or are NaN or infinite.
    """
    file = Path(path).expanduser()
    try:
        expected = network.state_dict()
        rename = getattr(network, "public_names", None)
        state = _without_prefixes(load_state(file), expected, *([rename] if callable(rename) else []))
        _fill_implied(state, expected)
        _check_fit(state, expected, file.name, network)
        _check_values(state, expected, file.name)
    except WeightsError as error:
        raise WeightsError(f"{setting}: {error}") from None
    network.load_state_dict(state)


def save_weights(
    network_or_state: nn.Module | Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> None:
    """Write weights as safetensors: whole, or not at all.

    A tensor under several names is written once; :func:`load_state` gives it back under each of them.

    Args:
        network_or_state: a network, its state dict, or a checkpoint that holds one under ``model``, ``state_dict`` …
        path: must end in ``.safetensors``; a file that is there is replaced.
        metadata: texts kept in the file's header.

    Raises:
        WeightsError: another suffix, or no weights in what is given.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() != ".safetensors":
        raise WeightsError(f"weights are written as .safetensors, got the file name '{target.name}'.")
    kept: State = {}
    shared: dict[str, str] = {}
    names: dict[object, str] = {}
    for name, tensor in _unwrapped(network_or_state, "the network").items():
        first = names.setdefault(_memory(tensor), name)
        if first == name:
            # A copy always: views into one storage are different tensors that the format refuses to hold.
            kept[name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        else:
            shared[name] = first
    header = {**metadata, **({_SHARED: json.dumps(shared)} if shared else {})}
    with atomic_path(target) as temporary:
        save_file(kept, temporary, metadata=header)


def _memory(tensor: Tensor) -> object:
    """Equal for two tensors exactly when they are the same elements in the same places."""
    if not tensor.numel() or tensor.device.type == "meta":
        return object()
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


# Reading


def _check_file(file: Path) -> None:
    if file.is_dir():
        inside = sorted(child.name for child in file.iterdir() if child.suffix.lower() in _READERS)
        raise WeightsError(f"'{file}' is a folder; name a weights file in it. It holds: {', '.join(inside) or 'none'}.")
    if not file.is_file():
        beside = [child.name for child in file.parent.iterdir()] if file.parent.is_dir() else []
        guess = nearest(file.name, beside)
        raise WeightsError(
            f"there is no weights file '{file}'" + (f"; did you mean '{file.with_name(guess)}'?" if guess else ".")
        )
    if file.suffix.lower() not in _READERS:
        raise WeightsError(f"'{file}' ends in '{file.suffix}'; accepted are {', '.join(_READERS)}.")
    with file.open("rb") as stream:
        start = stream.read(32)
    if not start:
        raise WeightsError(f"'{file}' is empty (0 bytes).")
    for sign, explanation in _NOT_WEIGHTS.items():
        if start.lower().startswith(sign.lower()):
            raise WeightsError(f"'{file}' {explanation}.")


def _read_safetensors(file: Path) -> State:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            state: State = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise _damaged(file, "safetensors", error) from None
    for name, first in json.loads(metadata.get(_SHARED, "{}")).items():
        state[name] = state[first]
    return state


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch warns of old and odd formats; whether they can be read is all that matters here.
            warnings.simplefilter("ignore")
            # The public benchmarks keep their command line beside the weights: a namespace of plain values runs no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.findall(r"GLOBAL (\S+)", str(error))
        if not unsafe and not zipfile.is_zipfile(file):
            raise _damaged(file, "a file written by torch.save", error) from None
        raise WeightsError(_conversion(file, unsafe)) from None
    except Exception as error:  # bytes at random raise any error while they are read
        raise _damaged(file, "a file written by torch.save", error) from None


_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".th", ".bin", ".ckpt"), _read_pickle),
}


def _damaged(file: Path, kind: str, error: Exception) -> WeightsError:
    reason = str(error).rpartition("WeightsUnpickler error:")[2].split("Check the documentation")[0]
    reason = f"{type(error).__name__}: {' '.join(reason.split()) or 'the file ends too early'}"
    return WeightsError(
        f"'{file}' ({file.stat().st_size:,} bytes) cannot be read as {kind}: {reason}. "
        "It is truncated, damaged, or not what its suffix says; copy or download it again."
    )


def _conversion(file: Path, unsafe: list[str]) -> str:
    need = f"needs {', '.join(unsafe)}, and with it" if unsafe else "needs more than tensors, and with it"
    target = file.with_suffix(".safetensors")
    return (
        f"'{file}' is a pickle that {need} could run any code, so it is not opened. If you trust where it comes from, "
        "convert it once, in an environment where its own classes can be imported:\n\n"
        "    import torch\n"
        "    from limbeck.models import save_weights\n"
        f"    checkpoint = torch.load({str(file)!r}, map_location='cpu', weights_only=False)\n"
        f"    save_weights(checkpoint, {str(target)!r}, {{}})\n"
    )


def _unwrapped(value: object, where: str) -> State:
    while True:
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if not isinstance(value, Mapping):
            raise WeightsError(f"{where} holds a {type(value).__name__}; expected a mapping from names to tensors.")
        if value and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()):
            return dict(value)
        inner = [value[key] for key in _NESTINGS if isinstance(value.get(key), Mapping | nn.Module)]
        if not inner:
            others = [str(key) for key, item in value.items() if not isinstance(item, Tensor)]
            raise WeightsError(
                f"{where} holds no weights: expected a mapping from names to tensors, or one under "
                f"{', '.join(_NESTINGS)}; entries that are not tensors: {_some(others) or 'none, it is empty'}."
            )
        value = inner[0]


# Fitting


def _without_prefixes(state: State, expected: Mapping[str, Tensor], *rename: Callable[[State], State]) -> State:
    """The state under the names that fit best; wrappers nest, so prefixes are taken off one after another."""
    candidates = [state]
    for candidate in candidates:
        stripped = (_strip(candidate, prefix) for prefix in _PREFIXES)
        candidates.extend(other for other in stripped if other.keys() != candidate.keys())
    candidates += [renamed(candidate) for renamed in rename for candidate in candidates]
    return dict(max(candidates, key=lambda candidate: len(candidate.keys() & expected.keys())))


def _strip(state: State, prefix: str) -> State:
    # A compiled part inside a network leaves its prefix in the middle of a name; no author names a module so.
    anywhere = prefix == "_orig_mod."
    stripped = {key.replace(prefix, "") if anywhere else key.removeprefix(prefix): state[key] for key in state}
    return stripped if len(stripped) == len(state) else state


def _fill_implied(state: State, expected: Mapping[str, Tensor]) -> None:
    """Add what a complete file may leave out: other names of a shared tensor, and counters of batches."""
    first_names: dict[object, str] = {}
    for name, tensor in expected.items():
        if name in state:
            first_names.setdefault(_memory(tensor), name)
    for name, tensor in expected.items():
        twin = first_names.get(_memory(tensor))
        if name not in state and twin is not None:
            state[name] = state[twin]
        # Files written before batch norm counted its batches are whole; torch loads them too.
        elif name not in state and name.endswith(".num_batches_tracked"):
            state[name] = tensor


def _check_fit(state: State, expected: Mapping[str, Tensor], file: str, network: nn.Module) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshaped = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if not (missing or unexpected or misshaped):
        return
    if not (missing or unexpected):
        _check_rows(misshaped, state, expected, file, network)
    shapes = [f"{name}: {tuple(state[name].shape)} and {tuple(expected[name].shape)}" for name in misshaped]
    found = {
        "missing in the file": missing,
        "unexpected in the file": unexpected,
        "of one shape in the file and another in the network": shapes,
    }
    lines = [
        f"\n  {what} ({len(names)}):\n    " + _some(names, between="\n    ") for what, names in found.items() if names
    ]
    raise WeightsError(f"{file} does not fit the network {type(network).__name__}." + "".join(lines))


def _check_rows(
    misshaped: list[str], state: State, expected: Mapping[str, Tensor], file: str, network: nn.Module
) -> None:
    """Raise the plain explanation when all that differs is the number of classes, or of tokens."""
    # Any other layer with more outputs would change the inputs of the next one too.
    differing = {(state[name].shape[:1], expected[name].shape[:1]) for name in misshaped}
    if len(differing) != 1 or any(state[name].shape[1:] != expected[name].shape[1:] for name in misshaped):
        return
    ((given, wanted),) = differing
    layers = sorted({name.rpartition(".")[0] for name in misshaped})
    embeddings = [module for module in map(network.get_submodule, layers) if isinstance(module, nn.Embedding)]
    if embeddings and not any(module is each for module in embeddings for each in _embeddings_of_tokens(network)):
        return  # of positions, for example
    if embeddings:
        raise WeightsError(
            f"{file} has a vocabulary of {given[0]:,} tokens, the data's tokenizer has {wanted[0]:,} (the rows of "
            f"'{', '.join(layers)}'). A network reads only the tokens it was trained on, and teacher and student read the "
            "same: give --tokenizer the one that these weights were trained with, or train them with this one. Where both "
            "know the data's tokens and one has more besides, the objective 'uld' compares across vocabularies."
        )
    raise WeightsError(
        f"{file} has {given[0]} classes, the data has {wanted[0]} (the outputs of '{', '.join(layers)}'). "
        "A network teaches only the classes it was trained on: use weights trained on this data, or train one first."
    )


def _embeddings_of_tokens(network: nn.Module) -> list[nn.Module]:
    """Where the networks of transformers that it consists of look tokens up."""
    found: list[nn.Module] = []
    for module in network.modules():
        get = getattr(module, "get_input_embeddings", None)
        with contextlib.suppress(NotImplementedError):  # raised by those that have none
            found += [get()] if callable(get) else []
    return found


def _check_values(state: State, expected: Mapping[str, Tensor], file: str) -> None:
    floating = [name for name in state if expected[name].is_floating_point()]
    other = [f"{name} is {state[name].dtype}" for name in floating if not state[name].is_floating_point()]
    if other:
        raise WeightsError(f"{file} holds weights that are not floating point numbers: {_some(other)}.")
    broken = [name for name in floating if not state[name].isfinite().all()]
    if broken:
        raise WeightsError(
            f"{file} holds NaN or infinite weights: {_some(broken)}. The training that wrote it diverged."
        )


def _some(names: Sequence[str], between: str = ", ") -> str:
    rest = len(names) - _LISTED
    return between.join([*names[:_LISTED], *([f"and {rest} more"] if rest > 0 else [])])

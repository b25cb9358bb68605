"""Adapters of low rank (LoRA, arXiv 2106.09685) in a language model whose own weights are frozen."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from limbeck.errors import MissingExtraError, SettingError, WeightsError, check_number, check_whole, unknown_name

_ATTENTION = ("attn", "attention", "self_attn", "self_attention")


def with_lora(
    network: nn.Module,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
    *,
    train_classifier: bool = False,
) -> nn.Module:
    """The network with adapters: ``y = W x + (alpha / rank) B A x`` in each target, W frozen, A and B to be trained.

    A starts at random from torch's global seed and B at zero, so that the network computes what it did. Adapters of a network
    in bfloat16 are float32. The network itself gets the adapters (it is changed, not copied) and is wrapped by peft: the
    wrapper is called as the network is, and its ``state_dict`` holds both. Gradient checkpointing works, switched on before or
    after.

    Args:
        network: of transformers, or any with linear layers.
        rank: the inner size of B A, at least 1.
        alpha: scale of what the adapters add; None for ``rank``, which is a factor of 1 (section 4.1 of the paper sets alpha
            to the first rank that is tried).
        targets: names of linear layers as their last part (``q_proj``) or as a whole path; None for all projections of all
            attentions. The paper adapts two of them, query and value.
        dropout: on the input of the adapters, in [0, 1).
        train_classifier: train the layers after the last hidden state of a classifier too, as a new, random one must be.
            They are copies, so that the original stays.

    Raises:
        SettingError: a number out of its range, a target that is no linear layer, nothing to adapt, or adapters that are
            there already.
        MissingExtraError: peft is not installed.
    """
    check_whole("rank", rank, low=1)
    check_number("alpha", rank if alpha is None else alpha, low=0, open_low=True)
    check_number("dropout", dropout, low=0, high=1)
    if dropout == 1:
        raise SettingError("dropout must be below 1, got 1: nothing would reach the adapters.")
    peft = _peft()
    if has_adapters(network):
        raise SettingError(f"{type(network).__name__} has adapters already; use merged(network) before it gets others.")
    linear = _linear_layers(network)
    paths = _attention_paths(network, linear) if targets is None else _named_paths(network, linear, targets)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=paths,
        # GPT-2 has its weights the other way round.
        fan_in_fan_out=not isinstance(linear[paths[0]], nn.Linear),
        modules_to_save=_classifier_of(network) if train_classifier else None,
    )
    return with_config(network, config)


def with_config(network: nn.Module, config: Any) -> nn.Module:
    """The network wrapped by peft, with adapters as peft's own configuration describes them; the network is changed."""
    with warnings.catch_warnings():
        # peft asks transformers by an old name, which is nothing that a user could change.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        wrapped: nn.Module = _peft().get_peft_model(network, config)
    return wrapped


def adapter_config(network: nn.Module) -> dict[str, Any]:
    """peft's configuration of the adapters, by name.

    Raises:
        SettingError: the network was not made by :func:`with_lora`.
    """
    return dict(_wrapper(network).peft_config["default"].to_dict())


def has_adapters(network: nn.Module) -> bool:
    """Whether a network has been given adapters."""
    return any(hasattr(module, "lora_A") for module in network.modules())


def adapters_of(network: nn.Module) -> nn.ModuleDict:
    """What learns beside a network's frozen weights: its adapters, and a classifier that trains, by the path of their layer.

    They are the network's own modules, and no others: their parameters and ``state_dict`` are a small part of its. A path has
    ``/`` for its dots, which would part the name of a module.
    """
    parts: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        name = path.replace(".", "/")
        if hasattr(module, "lora_A"):
            parts[name] = nn.ModuleList([getattr(module, "lora_A"), getattr(module, "lora_B")])  # noqa: B009 - peft's, unknown to types
        elif hasattr(module, "modules_to_save"):
            parts[name] = getattr(module, "modules_to_save")  # noqa: B009 - peft's, unknown to types
    return nn.ModuleDict(parts)


def merged(network: nn.Module) -> nn.Module:
    """A copy without adapters that computes the same: ``W + (alpha / rank) B A`` in their place, all of it trainable.

    Raises:
        SettingError: the network was not made by :func:`with_lora`.
    """
    plain: nn.Module = copy.deepcopy(_wrapper(network)).merge_and_unload()
    return plain.requires_grad_(True)


def unwrapped(network: nn.Module) -> Any:
    """The network without peft's wrapper, its adapters still in it; in a run, whose networks have none, the network itself."""
    return _wrapper(network).get_base_model() if _is_wrapped(network) else network


def plain_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names that they have without adapters: ``W + (alpha / rank) B A`` where there are some, else as they are.

    One after the other, so that no second copy of the network is made; without gradient. Weights that layers share come under
    the names of all of them.
    """
    plain = unwrapped(network)
    for name, weight in plain.named_parameters(remove_duplicate=False):
        path, inside, own = name.partition(".base_layer.")
        if inside:
            added = plain.get_submodule(path).get_delta_weight("default") if own == "weight" else 0
            yield f"{path}.{own}", (weight + added).detach()
        elif ".lora_" not in name:
            yield name, weight.detach()


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors by name, and those of a classifier that trains; the very tensors, without gradient.

    Raises:
        SettingError: the network was not made by :func:`with_lora`.
    """
    # Told not to look for embeddings, peft does not ask the hub about the vocabulary either.
    state = _peft().get_peft_model_state_dict(_wrapper(network), save_embedding_layers=False)
    return {name: tensor.detach() for name, tensor in state.items()}


def load_adapter_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put what :func:`adapter_state` gave into a network with the same adapters, all of it or nothing.

    Raises:
        SettingError: the network was not made by :func:`with_lora`.
        WeightsError: names or shapes differ.
    """
    expected = adapter_state(network)
    differing = sorted(
        name
        for name in {*expected, *state}
        if name not in expected or name not in state or expected[name].shape != state[name].shape
    )
    if differing:
        raise WeightsError(
            f"the adapters do not fit: {', '.join(differing[:4])} ({len(differing)} in all) are missing, unexpected or of "
            "another shape. Rank, targets and the trained classifier must be those that they were made with."
        )
    for name, tensor in state.items():
        expected[name].copy_(tensor)


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Inside the block the network is the one that it was before :func:`with_lora`.

    Raises:
        SettingError: the network was not made by :func:`with_lora`.
    """
    with _wrapper(network).disable_adapter():
        yield


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "text", "LoRA") from None
    return peft


def _is_wrapped(network: nn.Module) -> bool:
    # Without peft there is no wrapper, and what has none needs no peft.
    return has_adapters(network) and isinstance(network, _peft().PeftModel)


def _wrapper(network: nn.Module) -> Any:
    if not _is_wrapped(network):
        raise SettingError(f"{type(network).__name__} has no adapters; make them with with_lora(network, rank).")
    return network


def _linear_layers(network: nn.Module) -> dict[str, nn.Module]:
    kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
    try:
        from transformers.pytorch_utils import Conv1D
    except ImportError:
        pass
    else:
        kinds = (nn.Linear, Conv1D)
    return {path: module for path, module in network.named_modules() if isinstance(module, kinds)}


def _attention_paths(network: nn.Module, linear: Mapping[str, nn.Module]) -> list[str]:
    paths = [path for path in linear if any(part in _ATTENTION for part in path.split(".")[:-1])]
    if not paths:
        raise SettingError(
            f"{type(network).__name__} has no linear layers in modules named {', '.join(_ATTENTION)}; name the targets. "
            f"Its linear layers: {', '.join(_last_parts(linear)) or 'none'}."
        )
    return paths


def _named_paths(network: nn.Module, linear: Mapping[str, nn.Module], targets: Sequence[str]) -> list[str]:
    names = [targets] if isinstance(targets, str) else list(targets)
    if not names:
        raise SettingError("targets names no layer; leave it out for the projections of all attentions.")
    found: list[str] = []
    for name in names:
        matching = [path for path in linear if path == name or path.endswith(f".{name}")]
        if not matching:
            raise SettingError(unknown_name(f"linear layer of {type(network).__name__}", name, _last_parts(linear)))
        found += [path for path in matching if path not in found]
    _check_own_weights(network, found)
    return found


def _check_own_weights(network: nn.Module, paths: Sequence[str]) -> None:
    """What is added to weights that another layer has too would be added there as well, once adapters become weights."""
    owners: dict[int, list[str]] = {}
    for path, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            owners.setdefault(id(weight), []).append(path)
    for path in paths:
        others = [other for other in owners[id(network.get_submodule(path).weight)] if other != path]
        if others:
            raise SettingError(
                f"{path} shares its weights with {', '.join(others)}, so it gets no adapters; name others."
            )


def _last_parts(linear: Mapping[str, nn.Module]) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in linear})


def _classifier_of(network: nn.Module) -> list[str]:
    base = getattr(network, "base_model_prefix", None)
    head = getattr(network, "get_output_embeddings", None)
    names = [name for name, child in network.named_children() if name != base and any(True for _ in child.parameters())]
    if not base or not hasattr(network, base) or not names or (callable(head) and head() is not None):
        raise SettingError(f"train_classifier: {type(network).__name__} is no classifier of transformers.")
    return names

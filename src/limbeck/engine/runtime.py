"""Devices, precision and processes, through Accelerate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import nn

from limbeck.config import RunSettings
from limbeck.distributed import world_size
from limbeck.errors import SettingError, check_choice

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16", "auto": "no"}  # until it is measured


def make_accelerator(settings: RunSettings) -> Accelerator:
    """An Accelerator for these settings; what ``accelerate launch`` set up (processes, FSDP2, DeepSpeed) is kept.

    Raises:
        SettingError: the device does not exist here, or cannot compute in the precision asked for.
    """
    check_choice("device", settings.device, ("auto", "cpu", "cuda", "mps"))
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingError(
            "device is 'cuda', and PyTorch sees no CUDA device here. 'limbeck doctor' tells what it sees."
        )
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device is 'mps', and PyTorch sees no Apple GPU here. 'limbeck doctor' tells what it sees.")
    # Accelerate keeps its first precision and device for the life of the process; each run of ours has its own.
    AcceleratorState._reset_state(reset_partial_state=world_size() == 1)
    accelerator = Accelerator(
        mixed_precision=_PRECISION[settings.precision],
        cpu=settings.device == "cpu",
        # Our own micro-batches; without the plugin an environment variable of `accelerate launch` divides every loss.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # Objectives keep their memories equal themselves, and the running statistics are shared before they are read.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise SettingError("precision is 'fp16', and the device is a CPU, which trains in 'fp32' or 'bf16'.")
    if settings.batch_size % accelerator.num_processes:
        raise SettingError(
            f"batch_size is {settings.batch_size}, the number of images a step over all processes; it must be a multiple of "
            f"the {accelerator.num_processes} processes."
        )
    return accelerator


def stepping(accelerator: Accelerator, optimizer: Any) -> Any:
    """The object whose ``step`` is to be called: PyTorch's own optimizer where Accelerate's wrapper adds nothing.

    The wrapper looks for an optional package on the disk twice in each step, half a millisecond.
    """
    plain = accelerator.distributed_type in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
        DistributedType.FSDP,
    )
    return optimizer.optimizer if plain and accelerator.scaler is None else optimizer


def allow_compiling(modules: int) -> None:
    """Let torch.compile make a graph of each of so many modules of one class; beyond its limit it would run them uncompiled."""
    from torch._dynamo import config

    # Students of one kind share a graph; a smaller last batch is another graph.
    config.recompile_limit = max(config.recompile_limit, 2 * modules + 8)


def sharded(model: nn.Module) -> bool:
    """Whether the parameters are spread over the processes (FSDP2)."""
    return any(_is_sharded(parameter) for parameter in model.parameters())


def _is_sharded(value: torch.Tensor) -> bool:
    # Importing these parts of torch takes seconds, and nothing is sharded where nobody has.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


@contextmanager
def whole_parameters(model: nn.Module) -> Iterator[None]:
    """Inside the block every process holds all of a sharded model, so that its parts may be called on their own.

    And as often as each likes: nothing is gathered in a forward pass there, which the other processes would have to join.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    shards = [] if fsdp is None else [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]
    for module in shards[:1]:
        # Else a part that is called before the whole has been would take itself for the whole.
        module._get_fsdp_state()._lazy_init()
    # The first is around the others, and is not sharded again in a forward pass anyway.
    for module in shards[1:]:
        module.set_reshard_after_forward(False, recurse=False)
    for module in shards:
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
        for module in shards[1:]:
            module.set_reshard_after_forward(True, recurse=False)
        for module in shards:
            _forget_order(module._get_fsdp_state())


def _forget_order(state: Any) -> None:
    """Have a backward pass gather ahead in the order of its own forward pass alone.

    FSDP2 notes every forward pass for that. Those in which each process did as it liked are of different numbers, and with
    them processes would gather different layers, and wait for each other for ever.
    """
    state._comm_ctx.post_forward_order.clear()
    groups = getattr(state, "_fsdp_param_groups", None)
    for group in [state._fsdp_param_group] if groups is None else groups:  # older versions of torch have one at most
        if group is not None:
            group._post_forward_indices.clear()


def whole_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state on the CPU, whole on every process even where the module is sharded."""
    state = {name: value.detach() for name, value in module.state_dict().items()}
    whole = {name: value.full_tensor() if _is_sharded(value) else value for name, value in state.items()}
    return {name: value.to("cpu", copy=True) for name, value in whole.items()}


def load_whole_state(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The reverse of :func:`whole_state`."""
    if sharded(module):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))
    else:
        module.load_state_dict(state)


def state_dicts(model: nn.Module, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole state dicts of the trained module and its optimizer, the same on one process and on many."""
    inner = _unwrapped(model)
    if sharded(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_state_dict(model, optimizer.optimizer, options=options)
    return inner.state_dict(), optimizer.state_dict()


def set_state_dicts(
    model: nn.Module, optimizer: Any, model_state: dict[str, Any], optimizer_state: dict[str, Any] | None
) -> None:
    """The reverse of :func:`state_dicts`; without an optimizer state only the module is set."""
    if sharded(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizers = () if optimizer_state is None else optimizer.optimizer
        set_state_dict(
            model, optimizers, model_state_dict=model_state, optim_state_dict=optimizer_state or {}, options=options
        )
        return
    _unwrapped(model).load_state_dict(model_state)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model

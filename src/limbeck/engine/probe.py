"""One batch before the first step: it sizes the objectives' heads and shows what is missing while nothing is lost yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from limbeck.engine.trainable import Stage, Trainable, with_peers
from limbeck.errors import SignalError
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped, evaluating


def probe_signals(network: Tapped, inputs: Any, companions: nn.Module | None = None) -> Signals:
    """A network's signals for its inputs, in eval mode and without gradient, with those of the networks beside it."""
    with evaluating(network), torch.no_grad():
        signals: Signals = network(inputs)
        if companions is not None:
            with evaluating(companions):
                signals = with_peers(companions, inputs, signals)
        return signals


def check_classes(signals: Mapping[str, Signals], classes: Sequence[str] | None, data: str, batch: Batch) -> None:
    """Raise SignalError unless each network has a logit for every class of the data (for every label seen, if unnamed)."""
    needed = len(classes) if classes is not None else int(batch.labels.max()) + 1
    for who, found in signals.items():
        if found.logits is None:
            continue
        ours = found.logits.shape[-1]
        if ours < needed or (classes is not None and ours != needed):
            has = f"{needed}" if classes is not None else f"labels up to {needed - 1}"
            raise SignalError(f"the {who} tells {ours} classes apart, and {data} has {has}.")


def build_objectives(stages: list[Stage], student: Signals, teacher: Signals, batch: Batch) -> None:
    """Check that every stage's objective gets what it needs, then build its heads.

    Raises:
        SignalError: what is missing, or logits that differ in their number of classes.
    """
    for stage in stages:
        stage.objective.check(student, teacher, batch)
        if student.logits is not None and teacher.logits is not None and "logits" in stage.objective.needs:
            ours, theirs = student.logits.shape[-1], teacher.logits.shape[-1]
            if ours != theirs and stage.objective.needs_teacher:
                raise SignalError(
                    f"the teacher tells {theirs} classes apart and the student {ours}; they must be the same."
                )
        stage.objective.build(student, teacher)


def unused_parameters(trainable: Trainable, inputs: Any, teacher: Signals, batch: Batch) -> list[str]:
    """Names of parameters that ask for a gradient and get none from the active stage's loss.

    DDP must be told whether there are any. Weights, buffers and random numbers are as before afterwards.
    """
    with unchanged(trainable):
        terms, _ = trainable(inputs, teacher, batch)
        torch.stack(list(terms.values())).sum().backward()
        unused = [name for name, p in trainable.named_parameters() if p.requires_grad and p.grad is None]
        trainable.zero_grad(set_to_none=True)
    return unused


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    devices = [p.device for p in module.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=devices):
        yield
    module.load_state_dict(state)

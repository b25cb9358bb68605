"""What flows through the house: a batch, and what a network says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Signals:
    """What a network says about a batch of B samples.

    logits: (B, C) class scores before the softmax, or (B, L, V) for token models.
    embedding: (B, D) input of the classifier, or a pooled sentence vector.
    features: tapped tensors by name, each with B first.
    mask: (B, L) bool, True where a position counts; None when all do.
    """

    logits: Tensor | None = None
    embedding: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Signals:
        """A copy with ``function`` applied to every tensor but the mask."""
        return replace(
            self,
            logits=None if self.logits is None else function(self.logits),
            embedding=None if self.embedding is None else function(self.embedding),
            features={name: function(value) for name, value in self.features.items()},
        )

    def detach(self) -> Signals:
        """A copy cut off from the autograd graph."""
        return self.map(Tensor.detach)

    def available(self) -> set[str]:
        """Names of the signals that are present: of ``logits``, ``embedding``, ``features``, ``mask``."""
        present = {"logits": self.logits, "embedding": self.embedding, "mask": self.mask}
        names = {name for name, value in present.items() if value is not None}
        return names | ({"features"} if self.features else set())


@dataclass(frozen=True)
class Batch:
    """A batch of B samples as the loader gives it.

    inputs: what both networks see, before each network's own preprocessing; images are uint8 (B, C, H, W).
    labels: (B,) int64 classes.
    index: (B,) int64 position of each sample in its data set.
    view: (B,) int64 id of each sample's augmentation; the same id makes the same pixels again.
    weight: (B,) float weight of each sample in objectives that average over samples; None for equal weights.
    """

    inputs: Tensor
    labels: Tensor
    index: Tensor | None = None
    view: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A copy with ``function`` applied to every tensor that is present."""
        return Batch(
            inputs=function(self.inputs),
            labels=function(self.labels),
            index=None if self.index is None else function(self.index),
            view=None if self.view is None else function(self.view),
            weight=None if self.weight is None else function(self.weight),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device; the copy does not wait for the device."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return self.map(lambda value: value[rows])


# As pytree nodes they pass through torch.compile, DDP and torch.func as the tensors they hold.
pytree.register_dataclass(Signals)
pytree.register_dataclass(Batch)

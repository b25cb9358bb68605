"""One pass over a split: what networks say about each of its samples, kept for all figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import DataError
from limbeck.signals import Batch, Signals
from limbeck.taps import pooled

Read = Callable[[Batch], Signals]
"""From a batch to what a network says about it."""

MOST_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Gathered:
    """What a network said about the N samples of a split, float32 on the CPU.

    signals: logits (N, C); embedding (N, D) where the network has a classifier that is known; features (N, channels, 1, 1),
        each stage's map averaged over its positions. labels: (N,) int64.
    """

    signals: Signals
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def logits(self) -> Tensor:
        """(N, C)."""
        assert self.signals.logits is not None
        return self.signals.logits

    @property
    def embedding(self) -> Tensor | None:
        """(N, D), or None."""
        return self.signals.embedding


@torch.no_grad()
def collect(
    networks: Mapping[str, Read], batches: Iterable[Batch], *, most_bytes: int = MOST_BYTES
) -> dict[str, Gathered]:
    """What each network says about all samples, in one pass: each batch is loaded once.

    In memory are 4·N·(C + D + the channels of all stages) bytes for each network, and while the batches are joined the
    largest of these tensors once more; the maps themselves are averaged where they are made and not kept.

    Raises:
        DataError: there is no sample, or more than ``most_bytes`` would be kept.
    """
    parts: dict[tuple[str, str], list[Tensor]] = {}
    labels: list[Tensor] = []
    held = 0
    for batch in batches:
        labels.append(batch.labels.cpu())
        for who, read in networks.items():
            for name, value in _kept(read(batch)).items():
                parts.setdefault((who, name), []).append(value)
                held += value.numel() * value.element_size()
        if held > most_bytes:
            raise DataError(
                f"what the networks say about {sum(map(len, labels)):,} images and those after them is more than "
                f"{most_bytes / 2**30:.1f} GiB; evaluate fewer, as with --test-limit."
            )
    if not labels:
        raise DataError("the split has no images.")
    joined = torch.cat(labels)
    # Each list is emptied before the next is joined, so that two copies of one tensor at most are in memory.
    values = {key: torch.cat(parts.pop(key)) for key in list(parts)}
    return {who: Gathered(_signals(who, values), joined) for who in networks}


def _kept(signals: Signals) -> dict[str, Tensor]:
    found: dict[str, Tensor | None] = {"logits": signals.logits, "embedding": signals.embedding}
    found |= {f"features.{name}": pooled(value)[..., None, None] for name, value in signals.features.items()}
    return {name: value.detach().float().cpu() for name, value in found.items() if value is not None}


def _signals(who: str, values: Mapping[tuple[str, str], Tensor]) -> Signals:
    mine = {name: value for (owner, name), value in values.items() if owner == who}
    maps = {name.removeprefix("features."): value for name, value in mine.items() if name.startswith("features.")}
    return Signals(logits=mine.get("logits"), embedding=mine.get("embedding"), features=maps)

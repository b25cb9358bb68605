"""Choose part of a labelled set with every class in proportion."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.data.seeds import stream


def choose(labels: Tensor, count: int, seed: int, *, low: int = 0, keep: int = 0) -> Tensor:
    """Sorted positions, int64, of about ``count`` samples, the classes in proportion and the same for the same seed.

    labels: (N,) int64. Every present class gives at least ``low`` samples and keeps at least ``keep``, which
    goes before ``count``.
    """
    sizes = torch.bincount(labels)
    shares = _shares(sizes.tolist(), count, low, keep)
    order = torch.randperm(len(labels), generator=stream(seed))
    by_class = order[torch.argsort(labels[order], stable=True)]
    groups = torch.split(by_class, sizes.tolist())
    return torch.cat([group[:share] for group, share in zip(groups, shares, strict=True)]).sort().values


def _shares(sizes: list[int], count: int, low: int, keep: int) -> list[int]:
    """Largest remainders: whole numbers that add up to ``count`` where the bounds of each class allow."""
    quotas = [size * count / sum(sizes) for size in sizes]
    caps = [max(size - keep, 0) for size in sizes]
    lows = [min(low, cap) for cap in caps]
    shares = [min(max(int(quota), least), cap) for quota, least, cap in zip(quotas, lows, caps, strict=True)]
    for _ in range(count - sum(shares)):
        free = [c for c, share in enumerate(shares) if share < caps[c]]
        if free:
            shares[max(free, key=lambda c: quotas[c] - shares[c])] += 1
    for _ in range(sum(shares) - count):
        free = [c for c, share in enumerate(shares) if share > lows[c]]
        if free:
            shares[min(free, key=lambda c: quotas[c] - shares[c])] -= 1
    return shares

"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Found:
    """For each of Q queries its K best documents, the best first.

    documents: (Q, K) int64 places. scores: (Q, K) float32, in descending order. queries: (Q,) int64 places.
    """

    queries: Tensor
    documents: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.queries)

"""Reads Signals off an encoder of texts that sees queries and documents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import TapError
from limbeck.signals import Signals
from limbeck.taps import Tapped


@dataclass(frozen=True)
class SeenPairs:
    """What an encoder takes of a batch of pairs.

    queries, documents: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids`` of B queries and of their B·M
    documents, (B, L) and (B·M, L). excluded: (B, N) bool, the scores that are left out; N is B·M, or W·B·M where the
    documents of all W processes are scored.
    """

    queries: dict[str, Tensor]
    documents: dict[str, Tensor]
    excluded: Tensor


pytree.register_dataclass(SeenPairs)


class PairTapped(Tapped):
    """An encoder whose forward takes :class:`SeenPairs` and returns :class:`Signals`.

    They have ``embedding`` (B, D) of the queries, ``documents`` (B, M, D), and in ``logits`` (B, N) the scores, -inf where
    they are left out. The documents of other processes come with their gradient.

    Args:
        network: from a mapping with ``input_ids`` and ``attention_mask`` to embeddings.
        similarity: ``dot``, or ``cosine``.
        of_teacher: whether it sees the teacher's tokens.
    """

    def __init__(self, network: nn.Module, *, similarity: str, of_teacher: bool) -> None:
        super().__init__(network)
        self.similarity, self.of_teacher = similarity, of_teacher

    def record(self, group: str, name: str, path: str) -> None:
        raise TapError(
            "encoders of queries and documents give embeddings and scores, and no feature maps are tapped there."
        )

    def forward(self, inputs: SeenPairs) -> Signals:
        queries: Tensor = self.network(inputs.queries)
        documents: Tensor = self.network(inputs.documents)
        everyone = gather_rows(documents) if inputs.excluded.shape[1] > len(documents) else documents
        ours, theirs = (rows.float() for rows in (queries, everyone))
        if self.similarity == "cosine":
            ours, theirs = losses.unit(ours), losses.unit(theirs)
        return Signals(
            logits=(ours @ theirs.T).masked_fill(inputs.excluded, -torch.inf),
            embedding=queries,
            documents=documents.unflatten(0, (len(queries), -1)),
        )

"""Reads Signals off an encoder of texts that sees queries and documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from limbeck import losses
from limbeck.data.search.known import KnownTexts
from limbeck.distributed import gather_rows
from limbeck.errors import TapError
from limbeck.signals import Signals
from limbeck.taps import Tapped


@dataclass(frozen=True)
class SeenPairs:
    """What an encoder takes of a batch of pairs.

    queries, documents: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids`` of B queries and of their B·M
    documents, (B, L) and (B·M, L). excluded: (B, N) bool, the scores that are left out; N is B·M, or W·B·M where the
    documents of all W processes are scored. query, document: (B,) and (B, M) int64 places of the texts in the collection.
    labels: (B,) int64 column of the first of a query's own M documents among the N. scores: (B, M) float32, a teacher's from a
    file; None where there are none.
    extra, extra_query: tokens and places (B,) of further queries; None where there are none.
    """

    queries: dict[str, Tensor]
    documents: dict[str, Tensor]
    excluded: Tensor
    query: Tensor
    document: Tensor
    labels: Tensor
    scores: Tensor | None = None
    extra: dict[str, Tensor] | None = None
    extra_query: Tensor | None = None


pytree.register_dataclass(SeenPairs)


class PairTapped(Tapped):
    """An encoder whose forward takes :class:`SeenPairs` and returns :class:`Signals`.

    They have ``embedding`` (B, D) of the queries, ``documents`` (B, M, D), and in ``logits`` (B, N) the scores, -inf where
    they are left out. The documents of other processes come with their gradient.

    Args:
        network: from a mapping with ``input_ids`` and ``attention_mask`` to embeddings.
        similarity: ``dot``, or ``cosine``.
        of_teacher: whether it sees the teacher's tokens.
        known: what the network says of the collection's texts, where it does not learn; then no tokens are looked at.
        chunk: texts that go through the network at a time. Their activations are not kept: in the backward pass each chunk goes
            through it again, with the same random numbers, and its gradient is that of the embeddings, so that a batch takes
            the memory of a chunk. That is what GradCache (arXiv 2101.06983) does; here torch's checkpointing does it, inside
            one backward pass. None for all at once.

    ``documents_of``: another encoder's texts, whose documents are taken in the place of this one's; None for its own.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        similarity: str,
        of_teacher: bool,
        known: KnownTexts | None = None,
        chunk: int | None = None,
    ) -> None:
        super().__init__(network)
        self.similarity, self.of_teacher, self.known, self.chunk = similarity, of_teacher, known, chunk
        self.documents_of: KnownTexts | None = None

    def record(self, group: str, name: str, path: str) -> None:
        raise TapError(
            "encoders of queries and documents give embeddings and scores, and no feature maps are tapped there."
        )

    def forward(self, inputs: SeenPairs) -> Signals:
        queries = self._encoded(inputs.queries) if self.known is None else self.known.queries(inputs.query)
        lent = self.known or self.documents_of
        documents = self._encoded(inputs.documents) if lent is None else lent.documents(inputs.document.flatten())
        everyone = gather_rows(documents) if inputs.excluded.shape[1] > len(documents) else documents
        ours, theirs = (rows.float() for rows in (queries, everyone))
        if self.similarity == "cosine":
            ours, theirs = losses.unit(ours), losses.unit(theirs)
        return Signals(
            logits=(ours @ theirs.T).masked_fill(inputs.excluded, -torch.inf),
            embedding=queries,
            documents=documents.unflatten(0, (len(queries), -1)),
            extra=self._extra(inputs),
        )

    def _extra(self, inputs: SeenPairs) -> Tensor | None:
        if inputs.extra is None or inputs.extra_query is None:
            return None
        return self._encoded(inputs.extra) if self.known is None else self.known.queries(inputs.extra_query)

    def _encoded(self, inputs: dict[str, Tensor]) -> Tensor:
        """(R, D) embeddings of R texts."""
        if self.chunk is None:
            whole: Tensor = self.network(inputs)
            return whole
        split = {name: value.split(self.chunk) for name, value in inputs.items()}
        chunks = [dict(zip(split, values, strict=True)) for values in zip(*split.values(), strict=True)]
        run = partial(checkpoint, self.network, use_reentrant=False) if torch.is_grad_enabled() else self.network
        return torch.cat([run(chunk) for chunk in chunks])

"""The texts of a collection as a frozen encoder puts them, so that none need be read twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.data.search.batches import PairTexts
from limbeck.data.search.tokens import TokenRows


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of all texts of a collection by their places, float32: queries (Q, D), documents (N, D)."""

    queries: Tensor
    documents: Tensor


@dataclass
class KnownTexts:
    """What an encoder that does not learn says of the queries and documents of a collection.

    Until ``embedded`` is set, a text goes through the encoder whenever it is asked for; from then on it is looked up.

    name: the encoder's, for messages. encoder: from a mapping with ``input_ids`` and ``attention_mask`` to embeddings (R, D).
    texts: in its tokens. similarity: how it scores.
    """

    name: str
    encoder: nn.Module
    texts: PairTexts
    similarity: str
    embedded: TextEmbeddings | None = None

    def queries(self, places: Tensor) -> Tensor:
        """(…, D) float32 embeddings of the queries at places (…,) int64, on the places' device, without gradient."""
        return self._at(places, self.texts.queries, None if self.embedded is None else self.embedded.queries)

    def documents(self, places: Tensor) -> Tensor:
        """(…, D) float32 embeddings of the documents at places (…,) int64, as :meth:`queries`."""
        return self._at(places, self.texts.documents, None if self.embedded is None else self.embedded.documents)

    def _at(self, places: Tensor, rows: TokenRows, known: Tensor | None) -> Tensor:
        if known is None:
            return self._read(places, rows)
        return known[places.to(known.device)].to(places.device, non_blocking=True)

    @torch.no_grad()
    def _read(self, places: Tensor, rows: TokenRows) -> Tensor:
        training = self.encoder.training
        self.encoder.eval()
        try:
            found: Tensor = self.encoder(rows.batch(places.flatten().cpu()).to(places.device).inputs())
        finally:
            self.encoder.train(training)
        shaped: Tensor = found.float().unflatten(0, places.shape)
        return shaped

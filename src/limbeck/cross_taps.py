"""Teachers of search that score pairs: a cross-encoder, and scores that a file of examples holds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from limbeck.data.search import Pairs, ScoreCache
from limbeck.data.search.joint import JointTexts
from limbeck.distributed import gather_rows
from limbeck.errors import TapError
from limbeck.models.encoders import CrossEncoder
from limbeck.pair_taps import SeenPairs
from limbeck.signals import Signals
from limbeck.taps import Tapped

_SPAN = 20_000  # pairs that are scored between two writings of a file


class GivenScores(Tapped):
    """A teacher that is no network: its ``logits`` (B, N) are the scores of the examples' file, -inf where there is none."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def record(self, group: str, name: str, path: str) -> None:
        raise TapError("scores of a file come without feature maps.")

    def forward(self, inputs: SeenPairs) -> Signals:
        assert inputs.scores is not None
        return Signals(logits=_among_all(inputs.scores, inputs))


class CrossTapped(Tapped):
    """A cross-encoder whose forward takes :class:`~limbeck.pair_taps.SeenPairs` and returns :class:`Signals`.

    ``logits`` (B, N): the scores of each query and N documents, -inf where they are left out; of each query's own M documents
    alone, or of all that the batch has, which are B·N pairs to read in each step and cannot be kept.

    With ``pooled`` also ``embedding`` (B, W) and ``documents`` (B, M, W): the mean of the last layer's states over the tokens
    of the query, as it is read beside its positive, and over those of each document, as it is read beside its query. This is
    the dual pooling of EmbedDistill (arXiv 2301.12005). There the cross-encoder is trained until the product of both is its
    score; here it is taken as it is, and its score is that of its classifier.

    Args:
        network: the cross-encoder. joint: the texts in pairs. own: whether each query's own documents alone are scored.
        batch_size: pairs that it reads at a time.
    """

    def __init__(self, network: CrossEncoder, joint: JointTexts, *, own: bool, batch_size: int) -> None:
        super().__init__(network)
        self.cross, self.joint, self.own, self.batch_size = network, joint, own, batch_size
        self.pooled = False
        self.scores = ScoreCache(None, {})

    def record(self, group: str, name: str, path: str) -> None:
        raise TapError("cross-encoders give scores and embeddings, and no feature maps are tapped there.")

    def forward(self, inputs: SeenPairs) -> Signals:
        if self.pooled:
            return self._with_embeddings(inputs)
        if self.own:
            return Signals(logits=_among_all(self._known(inputs.query, inputs.document), inputs))
        return Signals(logits=self._of_batch(inputs))

    def read_all(self, pairs: Pairs, say: Callable[[str], None]) -> None:
        """Score every training pair that is not known, each once."""
        documents = torch.cat([pairs.positives[:, None], pairs.pool], dim=1)
        queries = pairs.queries[:, None].expand_as(documents)
        count, known = self.scores.count(queries, documents)
        say(f"            {count:,} pairs of a query and one of its documents are scored once; {known:,} are known")
        spans = (places.flatten().split(_SPAN) for places in (queries, documents))
        for of_query, of_document in zip(*spans, strict=True):
            self.scores.scores(of_query, of_document, self._compute)

    def _known(self, query: Tensor, document: Tensor) -> Tensor:
        places = query[:, None].expand_as(document).cpu()
        return self.scores.scores(places, document.cpu(), self._compute).to(query.device)

    def _compute(self, queries: Tensor, documents: Tensor) -> Tensor:
        return torch.cat([scores for scores, _, _ in self._read(queries, documents, states=False)])

    def _of_batch(self, inputs: SeenPairs) -> Tensor:
        everyone = inputs.document.flatten()
        if inputs.excluded.shape[1] > len(everyone):
            everyone = gather_rows(everyone)
        rows, columns = (~inputs.excluded).nonzero(as_tuple=True)
        found = self._compute(inputs.query[rows], everyone[columns])
        logits = torch.full_like(inputs.excluded, -torch.inf, dtype=torch.float32)
        logits[rows, columns] = found
        return logits

    def _with_embeddings(self, inputs: SeenPairs) -> Signals:
        count, each = inputs.document.shape
        queries = inputs.query[:, None].expand_as(inputs.document).flatten()
        parts = self._read(queries, inputs.document.flatten(), states=True)
        scores, of_query, of_document = (torch.cat(column) for column in zip(*parts, strict=True))
        own = scores.unflatten(0, (count, each))
        return Signals(
            logits=_among_all(own, inputs) if self.own else self._of_batch(inputs),
            embedding=of_query.unflatten(0, (count, each))[:, 0],
            documents=of_document.unflatten(0, (count, each)),
        )

    def _read(self, queries: Tensor, documents: Tensor, *, states: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
        """float32 scores (P,), and with ``states`` the pooled queries and documents (P, W), a few pairs at a time."""
        device = next(self.cross.parameters()).device
        parts = []
        for places in zip(queries.cpu().split(self.batch_size), documents.cpu().split(self.batch_size), strict=True):
            batch = self.joint.batch(*places)
            tokens = {name: value.to(device) for name, value in batch.inputs.items()}
            with torch.no_grad():
                if states:
                    scores, last = self.cross.with_states(tokens)
                    masks = (mask.to(device) for mask in (batch.of_query, batch.of_document))
                    pooled = [_mean(last.float(), mask) for mask in masks]
                else:
                    scores = self.cross(tokens)
                    pooled = [scores, scores]
            parts.append((scores.float(), pooled[0], pooled[1]))
        return parts


def _mean(states: Tensor, counts: Tensor) -> Tensor:
    """(P, W) the mean of (P, L, W) over the positions that count; 0 where none does."""
    weights = counts[..., None].to(states.dtype)
    mean: Tensor = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return mean


def _among_all(own: Tensor, inputs: SeenPairs) -> Tensor:
    """(B, N) the scores (B, M) of each query's own documents in their columns, -inf elsewhere and where excluded."""
    logits = torch.full_like(inputs.excluded, -torch.inf, dtype=torch.float32)
    columns = inputs.labels[:, None] + torch.arange(own.shape[1], device=own.device)
    return logits.scatter(1, columns, own.float()).masked_fill(inputs.excluded, -torch.inf)

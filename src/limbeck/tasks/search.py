"""How a batch of queries and documents meets an encoder."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.data.search import PairBatch
from limbeck.pair_taps import SeenPairs
from limbeck.signals import Batch


@dataclass(frozen=True)
class SearchTask:
    """An encoder sees the texts in its own tokens. of_teacher: the teacher's, where these are others than the student's."""

    of_teacher: bool

    def inputs(self, batch: Batch) -> SeenPairs:
        """The tokens of queries and documents, and which scores are left out."""
        pairs = batch.inputs
        assert isinstance(pairs, PairBatch)
        tokens = pairs.teacher if self.of_teacher and pairs.teacher is not None else pairs.student
        return SeenPairs(
            queries=tokens.queries.inputs(),
            documents=tokens.documents.inputs(),
            excluded=pairs.excluded,
            query=pairs.query,
            document=pairs.document,
            labels=pairs.labels,
            scores=pairs.scores,
            extra=None if pairs.extra is None else pairs.extra.inputs(),
            extra_query=pairs.extra_query,
        )

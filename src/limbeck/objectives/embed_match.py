"""Geometry of a teacher's search space: queries and documents are led to where the teacher puts them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError, check_flag, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class EmbedMatch(Objective, name="embed_match"):
    """Distance between the student's and the teacher's embedding of each query, and of each document.

    Query embeddings (B, d_S) and (B, d_T) in ``embedding``, document embeddings (B, M, d_S) and (B, M, d_T) in ``documents``.
    With a weight for ``extra`` also B further queries that nobody judged, (B, d_S) and (B, d_T) in ``extra``: where the
    teacher puts a text is known without an answer to it, which is the paper's task-independent matching of generated queries.
    The terms are ``queries``, ``documents`` and ``extra``: means of the Euclidean distance, which is not squared, over
    queries, and over the M documents of each query and then queries. Samples are weighted by ``batch.weight``. Computed in
    float32.

    Where the widths differ one trained linear map, without a bias, the same for queries and documents, brings the student's
    to the teacher's; equal widths have none. It is discarded after training, so that the student's own space stays another
    than the teacher's. A student that is to search documents of the teacher's must have its map inside, and so the
    teacher's width: see :func:`limbeck.models.encoders.project`.

    Args:
        queries: weight of the queries, at least 0.
        documents: weight of the documents, at least 0. With 0 none are needed, as where the student searches the teacher's own
            documents: their distance is zero then.
        extra: weight of the extra queries, at least 0.
        project: whether widths may differ; without, they must be equal, which is checked before the first step.

    Scale:
        Unit vectors that have nothing to do with each other are √2 apart, so that it is about 2.8 at initialisation; zero
        where both embeddings agree. The gradient of a distance has length 1 however near both are, but at 0, where it is 0.

    Differences:
        The paper gives both weights 1 beside the label loss and the score distillation (5 where queries are generated, by a
        note of others). What normalises embeddings there was not recovered: here they are compared as the networks give
        them. No authors' code is known. The loss of this name in sentence-transformers takes the cosine distance by default.
    """

    needs = frozenset({"embedding", "documents"})
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{\lambda_q}{B} \sum_i \left\lVert e^T(q_i) - W e^S(q_i) \right\rVert_2 "
        r"+ \frac{\lambda_d}{B M} \sum_{i,k} \left\lVert e^T(d_{ik}) - W e^S(d_{ik}) \right\rVert_2"
    )
    paper = Paper(
        "EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval", 2023, arxiv="2301.12005"
    )
    presets = {"embed_distill": "contrastive() + listwise_kl() + embed_match()"}

    def __init__(
        self, *, queries: float = 1.0, documents: float = 1.0, extra: float = 0.0, project: bool = True
    ) -> None:
        super().__init__()
        check_number("queries", queries, low=0.0)
        check_number("documents", documents, low=0.0)
        check_number("extra", extra, low=0.0)
        check_flag("project", project)
        if queries == 0 and documents == 0 and extra == 0:
            raise SettingError("queries, documents and extra are all 0, so there is nothing to train on.")
        self.queries, self.documents, self.extra, self.project = queries, documents, extra, project
        weights = {"embedding": queries, "documents": documents, "extra": extra}
        self.needs = frozenset(need for need, weight in weights.items() if weight > 0)
        self.projection: nn.Module | None = None

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        for need in sorted(self.needs):
            ours, theirs = _of(student, need), _of(teacher, need)
            if ours.shape[:-1] != theirs.shape[:-1]:
                raise SignalError(
                    f"{self.expression()} compares each text with itself, and the student's {need} are {tuple(ours.shape)}, "
                    f"the teacher's {tuple(theirs.shape)}."
                )
            if ours.shape[-1] != theirs.shape[-1] and not self.project:
                raise SignalError(
                    f"{self.expression()}: the student's {need} have {ours.shape[-1]} numbers, the teacher's "
                    f"{theirs.shape[-1]}, and project=False; give the student a projection to the teacher's width, or "
                    "project=True."
                )

    def build(self, student: Signals, teacher: Signals) -> None:
        need = min(self.needs)
        ours, theirs = _of(student, need), _of(teacher, need)
        same = ours.shape[-1] == theirs.shape[-1]
        linear = nn.Linear(ours.shape[-1], theirs.shape[-1], bias=False, device=ours.device)
        self.projection = nn.Identity() if same else linear

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        parts = (
            ("queries", "embedding", self.queries),
            ("documents", "documents", self.documents),
            ("extra", "extra", self.extra),
        )
        for term, need, weight in parts:
            if need in self.needs:
                apart = _distance(self._projected(_of(student, need)), _of(teacher, need)).flatten(1).mean(dim=1)
                terms[term] = weight * losses.mean(apart, weight=batch.weight)
        return terms

    def _projected(self, embeddings: Tensor) -> Tensor:
        if self.projection is None:
            raise SettingError(
                "embed_match has no projection yet: call build(student, teacher) before you create the optimizer."
            )
        if isinstance(self.projection, nn.Linear):
            return losses.project(embeddings, self.projection)
        return embeddings


@losses.in_float32
def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(B, M) Euclidean distances of (B, M, D), or (B, 1) of (B, D)."""
    if ours.ndim == 2:
        ours, theirs = ours[:, None], theirs[:, None]
    distance: Tensor = torch.linalg.vector_norm(ours - theirs.to(ours.dtype), dim=-1)
    return distance


def _of(signals: Signals, need: str) -> Tensor:
    value: Tensor | None = getattr(signals, need)
    assert value is not None
    return value

"""Margins of scores: how much better a query's document is than another, in the teacher's own units."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class MarginMSE(Objective, name="margin_mse"):
    """Mean squared difference between student's and teacher's margins, of a query's positive over each other document.

    Scores (B, N) of each query and N documents in ``logits`` of both; ``labels`` (B,) int64 are the columns of the positives.
    The margin of column j is the positive's score less that of j. The mean runs over a query's columns but the positive's
    and those with a score of -inf in either matrix, then over queries, weighted by ``batch.weight``; a query without such a
    column counts as 0. Computed in float32.

    Nothing is divided by a temperature: the student learns the teacher's differences in its units. A student whose scores are
    cosines cannot reach the margins of a cross-encoder; take inner products then, or ``listwise_kl``.

    Scale:
        That of the teacher's squared margins: about 1 for a teacher of cosines with a margin of 1, and 100 for a
        cross-encoder with margins of 10. Zero where the scores differ by a constant for each query.

    Differences:
        The paper has one negative for each query, drawn from those of BM25, and that alone is compared; give the scores of
        each query's own documents (B, M) for it. With the matrix of a batch all others are compared as well.
    """

    needs = frozenset({"labels", "logits"})
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{N - 1} \sum_{j \ne y_i} "
        r"\left( (s^S_{i y_i} - s^S_{ij}) - (s^T_{i y_i} - s^T_{ij}) \right)^2"
    )
    paper = Paper(
        "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation",
        2020,
        arxiv="2010.02666",
    )
    presets = {"margin_mse": "margin_mse()"}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        values = _squared_margins(student.logits, teacher.logits, batch.labels)
        return {"margin_mse": losses.mean(values, weight=batch.weight)}


@losses.in_float32
def _squared_margins(ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
    """(B,) the mean over the columns that count."""
    counts = ours.isfinite() & theirs.isfinite()
    counts = counts.scatter(1, labels[:, None], False)
    # The difference of margins is that of the gaps between both scores; what is left out must not reach the gradient.
    gap = ours.where(counts, 0.0) - theirs.where(counts, 0.0)
    positive = (ours - theirs).gather(1, labels[:, None])
    squares = (positive - gap).square().where(counts, 0.0)
    return squares.sum(dim=1) / counts.sum(dim=1).clamp(min=1)

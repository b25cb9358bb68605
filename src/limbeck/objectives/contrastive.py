"""Contrast of a query's document with all others: what search is trained by without a teacher."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class Contrastive(Objective, name="contrastive"):
    """Cross-entropy of each query's own document among the documents of the batch (InfoNCE), from the student's scores.

    Student scores (B, N) in ``logits``, of each query and N documents: the B·M of the batch, or of all processes' batches, or
    its own M alone. ``labels`` (B,) int64 are the columns of the queries' positives. A score of -inf leaves a document out,
    as of those that answer the query too. Samples are weighted by ``batch.weight``. The teacher is not used. At temperature 1
    it is ``ce``; it is the contrast of ``icd``, between queries and documents in the place of students and teachers.

    Args:
        temperature: T > 0, by which scores are divided. Cosines lie in [-1, 1] and need a small one: 0.05 is the scale of 20
            that sentence-transformers multiplies by. Scores of embeddings that were trained as products, and those of
            cross-encoders, take 1.

    Scale:
        ln N at initialisation where scores are near each other (6.2 for 64 queries with 8 documents each).

    Differences:
        EmbedDistill's label loss (2301.12005, eq. 9) is this at T = 1 on inner products. Nothing is drawn here: which
        documents are negatives is a matter of the batch.
    """

    needs = frozenset({"labels", "logits"})
    needs_teacher = False
    formula = r"\mathcal{L} = -\frac{1}{B} \sum_i \log \mathrm{softmax}(s^S_i / T)_{y_i}"
    paper = Paper("Representation Learning with Contrastive Predictive Coding", 2018, arxiv="1807.03748")
    presets = {"contrastive": "contrastive()"}

    def __init__(self, *, temperature: float = 0.05) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        self.temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        values = losses.cross_entropy(losses.tempered(student.logits, self.temperature), batch.labels)
        return {"contrastive": losses.mean(values, weight=batch.weight)}

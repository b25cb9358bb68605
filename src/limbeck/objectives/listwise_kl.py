"""Score distillation for search: how the teacher divides its belief among a query's documents."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class ListwiseKL(Objective, name="listwise_kl", aliases=("score_kd",)):
    """Kullback-Leibler divergence from the teacher's to the student's softmax over the documents of each query.

    Scores (B, N) of each query and the same N documents in ``logits`` of both: all documents of the batch, or a query's own. A
    score of -inf, at the same places in both, leaves a document out. Samples are weighted by ``batch.weight``.

    It is ``kl`` on the matrix of scores, with a temperature for each side and without the factor T²: teacher and student
    score in different units where one is a cross-encoder and the other a cosine, and a T of 0.05 squared would leave a
    400th of the loss. Equal to the last bit to ``kl(temperature=1)`` at temperatures of 1.

    Args:
        temperature: T_S > 0, by which the student's scores are divided: 0.05 for cosines, 1 for inner products of
            embeddings that were trained so.
        teacher_temperature: T_T > 0 for the teacher's; 0 takes the student's. Choose it so that the teacher's softmax has a few
            documents in it: at T_T too small it is the label alone, at T_T too large it is nearly uniform.

    Scale:
        Zero when both softmaxes agree; at initialisation about ln N less the entropy of the teacher's softmax.

    Differences:
        EmbedDistill's score distillation (2301.12005, eq. 11) is a cross-entropy, which is greater by the teacher's entropy
        and has the same gradient; its temperature was not recovered.
    """

    needs = frozenset({"logits"})
    formula = (
        r"\mathcal{L} = \frac{1}{B} \sum_i \mathrm{KL}\left( \mathrm{softmax}(s^T_i / T_T) \,\|\, "
        r"\mathrm{softmax}(s^S_i / T_S) \right)"
    )
    paper = Paper(
        "EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval", 2023, arxiv="2301.12005"
    )
    presets = {"listwise_kl": "listwise_kl()"}

    def __init__(self, *, temperature: float = 0.05, teacher_temperature: float = 0.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        check_number("teacher_temperature", teacher_temperature, low=0.0)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.zero_when_equal = teacher_temperature in (0, temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        ours = losses.tempered(student.logits, self.temperature)
        theirs = losses.tempered(teacher.logits, self.teacher_temperature or self.temperature)
        values = losses.divergence(ours, theirs, losses.FORWARD_KL)
        return {"listwise_kl": losses.mean(values, weight=batch.weight)}

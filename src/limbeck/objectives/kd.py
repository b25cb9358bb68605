"""Knowledge distillation on softened logits."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class KD(Objective, name="kd"):
    """Kullback-Leibler divergence from the teacher's to the student's softened class probabilities.

    Logits (B, C), or (B, L, C) with the student's mask (B, L): the mean then runs over the positions that count. Samples are
    weighted by ``batch.weight`` when there is one.

    Args:
        temperature: T > 0; both softmaxes are taken at logits/T, and the divergence is multiplied by T² so that the size of
            its gradient does not depend on T.

    Scale:
        Zero when student and teacher agree. The benchmark of the ICD paper uses 0.1·CE + 0.9·KD at T = 4.

    Differences:
        The sum runs over classes and the mean over samples ("batchmean"); a mean over classes as well, as some public codes
        have it, is C times smaller.
    """

    needs = frozenset({"logits"})
    per_position = True
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{T^2}{B} \sum_i \sum_c p^T_{ic} \left( \log p^T_{ic} - \log p^S_{ic} \right), \quad "
        r"p = \mathrm{softmax}(z / T)"
    )
    paper = Paper("Distilling the Knowledge in a Neural Network", 2015, arxiv="1503.02531")
    presets = {"kd": "0.1*ce + 0.9*kd(temperature=4)"}

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        self.temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        values = losses.kl_divergence(student.logits, teacher.logits, temperature=self.temperature)
        return {"kd": self.temperature**2 * losses.mean(values, weight=batch.weight, mask=student.mask)}

"""A loss of your own, in one file."""

from limbeck import Objective
from limbeck.losses import mean


class Brier(Objective, name="brier"):
    """Squared distance between the student's and the teacher's class probabilities."""

    needs = frozenset({"logits"})
    zero_when_equal = True
    formula = r"\mathcal{L} = \frac{1}{B} \sum_i \sum_c (p^S_{ic} - p^T_{ic})^2, \quad p = \mathrm{softmax}(z)"

    def forward(self, student, teacher, batch):
        p, q = student.logits.float().softmax(-1), teacher.logits.float().softmax(-1)
        return {"brier": mean((p - q).square().sum(-1), weight=batch.weight)}

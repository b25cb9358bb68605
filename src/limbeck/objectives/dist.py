"""Distillation by correlation: the student follows the teacher's ranking, not its numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows, world_size
from limbeck.errors import SettingError, SignalError, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, rows


class DIST(Objective, name="dist"):
    """Pearson correlation of student's and teacher's probabilities, along the classes and along the samples of a batch.

    Logits (B, C), or (B, L, V) of token models, whose positions that the student's mask (B, L) counts are the samples (in
    one process then, unless ``intra`` is 0: each has another number of them). The terms are ``inter_class`` (1 less the
    correlation of a sample's probabilities over the classes, mean over samples, which are weighted by ``batch.weight``) and
    ``intra_class`` (1 less the correlation of a class's probabilities over the batch, mean over classes). Among several
    processes the rows are gathered, so that the batch is that of all.

    Args:
        temperature: T > 0; both softmaxes are taken at logits/T, and both terms are multiplied by T².
        inter: weight of the inter-class term, at least 0.
        intra: weight of the intra-class term, at least 0; with 0 the loss does not couple the samples.

    Scale:
        Each term is near T² at initialisation (16 at T = 4), where nothing is correlated, and at most 2·T². Zero where the
        student's probabilities are the teacher's, or any increasing linear function of them in rows and in columns.

    Differences:
        A correlation with a constant vector is not defined; here it counts as 0 and gives no gradient, so a student of equal
        logits (a classifier that starts at zero) learns nothing from this loss until another moves it. Constant means: to the
        rounding of the numbers. The authors add 1e-8 to the product of the norms instead, which lets classes of very small
        probability (a teacher that is sure leaves many at T = 1) count as uncorrelated; here the size of the probabilities
        plays no part. They use T = 4 on CIFAR-100 and T = 1 on ImageNet, and twice this loss beside the cross-entropy.
    """

    needs = frozenset({"logits"})
    per_position = True
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = T^2 \left( \frac{1}{B} \sum_i \left( 1 - \rho(Y^S_{i:}, Y^T_{i:}) \right) "
        r"+ \frac{1}{C} \sum_c \left( 1 - \rho(Y^S_{:c}, Y^T_{:c}) \right) \right), \quad "
        r"Y = \mathrm{softmax}(z / T), \quad "
        r"\rho(u, v) = \frac{\langle u - \bar{u}, v - \bar{v} \rangle}{\| u - \bar{u} \|_2 \, \| v - \bar{v} \|_2}"
    )
    paper = Paper("Knowledge Distillation from A Stronger Teacher", 2022, arxiv="2205.10536")
    presets = {"dist": "ce + 2*dist(temperature=4)"}

    def __init__(self, *, temperature: float = 4.0, inter: float = 1.0, intra: float = 1.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        check_number("inter", inter, low=0.0)
        check_number("intra", intra, low=0.0)
        if inter == 0 and intra == 0:
            raise SettingError("inter and intra are both 0, so there is nothing to train on.")
        self.temperature, self.inter, self.intra = temperature, inter, intra
        if intra == 0:
            self.batch_coupled, self.minimum_batch = False, 1

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        assert student.logits is not None
        if student.logits.ndim > 2 and self.intra > 0 and world_size() > 1:
            raise SignalError(
                f"{self.expression()} correlates the positions of a batch, of which each process has another number: train "
                "in one process, or take dist(intra=0)."
            )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        student, teacher, batch = rows(student, teacher, batch)
        assert student.logits is not None
        assert teacher.logits is not None
        ours, theirs = _log_softmax(student.logits, self.temperature), _log_softmax(teacher.logits, self.temperature)
        terms = {}
        if self.inter > 0:
            inter = losses.mean(_uncorrelated(ours, theirs), weight=batch.weight)
            terms["inter_class"] = self.inter * self.temperature**2 * inter
        if self.intra > 0:
            intra = _uncorrelated(gather_rows(ours).T, gather_rows(theirs).T).mean()
            terms["intra_class"] = self.intra * self.temperature**2 * intra
        return terms


@losses.in_float32
def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits / temperature, dim=-1)


@losses.in_float32
def _uncorrelated(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,) 1 less the Pearson correlation of the rows of exp(ours) and exp(theirs), (N, M); 1 where a row is constant."""
    return losses.correlation_distance(losses.scaled_exp(ours), losses.scaled_exp(theirs))

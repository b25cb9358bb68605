"""Information theoretic representation distillation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import SettingError, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class ITRD(Objective, name="itrd"):
    """The correlation between each number of the student's embedding and the teacher's, and their mutual information.

    Student embeddings (B, d_S) pass a trained linear layer to the d_T numbers of the teacher's (B, d_T). The terms are
    ``correlation`` (for each of the d_T numbers, how far from 1 its correlation over the batch is) and ``mutual`` (a second
    order Rényi entropy of the student's (B, B) cosines less that of the cosines of both, without the logarithms). The
    layer and all that follows are float32. Several processes form one batch. The layer is discarded after training.

    Args:
        correlation: λ_corr, weight of the correlation; 0 leaves the term out.
        mutual: λ_mut, weight of the mutual information; 0 leaves the term out.
        alpha: α > 0, order of the correlation: numbers that are less correlated count the more.

    Scale:
        correlation is near λ_corr·log₂ d_T at initialisation (16 for d_T = 256). It is not zero but negative for perfect
        correlation: the least is λ_corr·(log₂ d_T - 2α·log₂ B), which is -20 for d_T = 256 and B = 64. In a batch of two it
        has no gradient, for all correlations are ±1/2. mutual is between 0 and λ_mut, and near 0 at initialisation. Neither
        is zero for a student that equals the teacher.

    Differences:
        c_d divides by B and the deviations by B - 1, as in the authors' code; c_d is therefore at most 1 - 1/B and the
        logarithm never of zero. A number that is constant in the batch, as of a dead ReLU, is NaN there and here has
        correlation 0. The defaults are those of the authors' script; the example of their README has mutual=1, alpha=1.01.
        As there, the cosines are of the student's embedding itself where both have the same width, and else of the layer's
        output. The layer has a bias only in that second case, for a correlation has no use of it. There is no KD term. A
        port by the authors of ICD forgets both weights.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \lambda_\mathrm{corr} \log_2 \sum_d \left| c_d - 1 \right|^{2\alpha} + \lambda_\mathrm{mut} \sum_{i,j} "
        r"\left[ \left( \frac{G^S_{ij}}{\mathrm{tr}\, G^S} \right)^2 - \left( \frac{G^{ST}_{ij}}{\mathrm{tr}\, G^{ST}} "
        r"\right)^2 \right], \quad c_d = \frac{1}{B} \sum_i \hat{z}^S_{id} \hat{h}^T_{id}, \quad z^S = W h^S + b, \quad "
        r"G_{ij} = \cos(h_i, h_j), \quad G^{ST} = G^S \circ G^T"
    )
    paper = Paper("Information Theoretic Representation Distillation", 2021, arxiv="2112.00459")
    presets = {"itrd": "ce + itrd()"}

    def __init__(self, *, correlation: float = 2.0, mutual: float = 0.05, alpha: float = 1.5) -> None:
        super().__init__()
        check_number("correlation", correlation, low=0.0)
        check_number("mutual", mutual, low=0.0)
        check_number("alpha", alpha, low=0.0, open_low=True)
        if correlation == 0 and mutual == 0:
            raise SettingError(
                "correlation and mutual are both 0, so itrd has nothing to compare; give one of them a weight."
            )
        self.correlation, self.mutual, self.alpha = correlation, mutual, alpha
        self.head: nn.Linear | nn.Identity | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        ours, theirs = student.embedding.shape[-1], teacher.embedding.shape[-1]
        if self.correlation == 0 and ours == theirs:
            self.head = nn.Identity()
        else:
            bias = self.mutual > 0 and ours != theirs
            self.head = nn.Linear(ours, theirs, bias=bias, device=student.embedding.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.head is None:
            raise SettingError("itrd has no head yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding is not None
        assert teacher.embedding is not None
        ours, theirs = gather_rows(student.embedding), gather_rows(teacher.embedding)
        projected = losses.project(ours, self.head) if isinstance(self.head, nn.Linear) else ours
        terms = {}
        if self.correlation > 0:
            terms["correlation"] = self.correlation * _correlation(projected, theirs, self.alpha)
        if self.mutual > 0:
            compared = ours if ours.shape[-1] == theirs.shape[-1] else projected
            terms["mutual"] = self.mutual * _mutual(compared, theirs)
        return terms


@losses.in_float32
def _correlation(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    correlations = (_standardise(student) * _standardise(teacher)).mean(dim=0)
    # As a sum of exponentials: the powers themselves may be too small for float32.
    return torch.logsumexp(2 * alpha * (correlations - 1).abs().log(), dim=0) / math.log(2)


def _standardise(rows: Tensor) -> Tensor:
    """(B, d) rows less their mean over the batch, over their unbiased deviation; 0 where all B are equal."""
    variance, mean = torch.var_mean(rows, dim=0)
    # What equal numbers differ by after rounding is no deviation.
    constant = variance <= (8 * torch.finfo(rows.dtype).eps * mean.detach()).square()
    return (rows - mean) / variance.masked_fill(constant, torch.inf).sqrt()


@losses.in_float32
def _mutual(student: Tensor, teacher: Tensor) -> Tensor:
    ours = losses.cosine_similarity_matrix(student, student)
    both = ours * losses.cosine_similarity_matrix(teacher, teacher)
    return _of_unit_trace(ours).square().sum() - _of_unit_trace(both).square().sum()


def _of_unit_trace(matrix: Tensor) -> Tensor:
    # Each sample has 1 on the diagonal, or 0 when its embedding is zero: a trace below 1 is one of zeros.
    return matrix / matrix.trace().clamp(min=0.5)

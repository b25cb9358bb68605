"""Distillation by correlation of values and of ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_views
from limbeck.errors import SettingError, check_choice, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class R2KD(Objective, name="r2kd"):
    """Cosine of student's and teacher's probabilities, along the classes and along the batch, and Spearman's correlation.

    Logits (B, C). The terms are ``inter_class`` (1 less the cosine of a sample's probabilities over the classes, mean over
    samples, which are weighted by ``batch.weight``), ``intra_class`` (1 less the cosine of a class's probabilities over the
    batch, mean over classes) and ``rank`` (1 less Spearman's correlation of a sample's logits over the classes, weighted
    likewise). If the batch holds several views of its samples (``batch.copies``), a column of ``intra_class`` is one view of
    each sample, and all terms are averaged over the views. Among several processes the rows are gathered for
    ``intra_class``, so that the batch is that of all. Computed in float32, with a few (B, C) tensors and a few of 16 MB.

    Ranks are made differentiable by pairwise sigmoids, r_c = 1 + Σ_{j ≠ c} σ(sharpness·(x_c - x_j)), as in Qin, Liu and Li
    (Information Retrieval, 2010), of logits x less their mean, over their standard deviation: the size of the logits plays no
    part. It takes time in B·C².

    Args:
        value_weight: weight of both cosine terms, at least 0; 0 leaves them out, and then samples are not coupled.
        rank_weight: weight of the rank term, at least 0; 0 leaves it out, and the correlation loss alone remains.
        temperature: T > 0 of the probabilities; both cosine terms are multiplied by T². Ranks do not depend on it.
        rank: "soft", or "paper" for the authors' ranks by sorting twice, whose gradient is exactly zero.
        sharpness: > 0, of the soft ranks, for each standard deviation of the logits. Greater is nearer to exact ranks, with a
            gradient from fewer classes.

    Scale:
        Zero for equal logits, and rank for any increasing linear function of the teacher's. Probabilities at T = 4 are
        nearly uniform and their cosine is near 1, which T² makes up for. For 64 samples, 100 classes and independent logits
        N(0, 4²) inter_class is about 19 and intra_class 18 at the default weight (both are at most 2·T² = 32), and rank is 2
        of at most 4.

    Differences:
        The authors' rank term has no gradient, since sorting passes none: what they train is the correlation loss. Here
        rank="paper" is that term, for comparison, and rank="soft" one that teaches. Which sharpness is best was not
        recovered, since there is none there: 10 is a choice. They add 1e-8 to the product of the norms, and take the absolute
        value of cosines that are never negative. Their total adds a clean and an augmented view up, with a cross-entropy on
        the clean one alone: with two views (``crop=4,flip | crop=4,flip,mixup=0.2``) that is ``ce(views='first')`` and
        ``2*r2kd()``, since views are averaged here. With one view the preset is the same as ``ce + r2kd()``. Their teacher
        is mixed with a pruned copy of itself; that is a matter of the teacher, not of this loss.
    """

    needs = frozenset({"logits"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = w_v T^2 \left( \frac{1}{B} \sum_i \left( 1 - \cos(Y^S_{i:}, Y^T_{i:}) \right) "
        r"+ \frac{1}{C} \sum_c \left( 1 - \cos(Y^S_{:c}, Y^T_{:c}) \right) \right) "
        r"+ \frac{w_r}{B} \sum_i \left( 1 - \rho(r(z^S_i), r(z^T_i)) \right), \quad Y = \mathrm{softmax}(z / T)"
    )
    paper = Paper(
        "Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network Pruning",
        2023,
        arxiv="2311.13934",
    )
    presets = {"r2kd": "ce(views='first') + r2kd()"}

    def __init__(
        self,
        *,
        value_weight: float = 2.0,
        rank_weight: float = 2.0,
        temperature: float = 4.0,
        rank: str = "soft",
        sharpness: float = 10.0,
    ) -> None:
        super().__init__()
        check_number("value_weight", value_weight, low=0.0)
        check_number("rank_weight", rank_weight, low=0.0)
        check_number("temperature", temperature, low=0.0, open_low=True)
        check_number("sharpness", sharpness, low=0.0, open_low=True)
        check_choice("rank", rank, ("soft", "paper"))
        if value_weight == 0 and rank_weight == 0:
            raise SettingError("value_weight and rank_weight are both 0, so there is nothing to train on.")
        if value_weight == 0 and rank == "paper":
            raise SettingError("value_weight is 0 and rank='paper' has no gradient, so there is nothing to train on.")
        self.value_weight, self.rank_weight, self.temperature = value_weight, rank_weight, temperature
        self.rank, self.sharpness = rank, sharpness
        if value_weight == 0:
            self.batch_coupled, self.minimum_batch = False, 1

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        terms = {}
        if self.value_weight > 0:
            ours, theirs = (_log_softmax(logits, self.temperature) for logits in (student.logits, teacher.logits))
            weight = self.value_weight * self.temperature**2
            terms["inter_class"] = weight * losses.mean(_cosine_distance(ours, theirs), weight=batch.weight)
            columns = (gather_views(rows, batch.copies).mT.flatten(0, 1) for rows in (ours, theirs))
            terms["intra_class"] = weight * _cosine_distance(*columns).mean()
        if self.rank_weight > 0:
            sharpness = self.sharpness if self.rank == "soft" else None
            distance = losses.spearman_distance(student.logits, teacher.logits, sharpness=sharpness)
            terms["rank"] = self.rank_weight * losses.mean(distance, weight=batch.weight)
        return terms


@losses.in_float32
def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits / temperature, dim=-1)


def _cosine_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,) 1 less the cosine of the rows of exp(ours) and exp(theirs), (N, M)."""
    return losses.cosine_distance(losses.scaled_exp(ours), losses.scaled_exp(theirs))

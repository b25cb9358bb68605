"""Comparative distillation: differences between samples, the student's like the teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_views
from limbeck.errors import SettingError, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals

_MASK = 2**32 - 1


class CKD(Objective, name="ckd"):
    """Squared distance between student's and teacher's (and the labels') difference of two groups of samples.

    Logits (B, C). A tuple is n different samples of the batch in an order: the first n - ⌊n/2⌋ make one group, the others
    the second, and Δ is the mean over the first less the mean over the second. The terms are ``classification`` (squared
    distance of the student's Δ of logits to the Δ of one-hot labels, mean over tuples and classes), ``relation`` (that to
    the teacher's Δ of logits), ``kd`` (divergence of the softmaxes of student's and teacher's Δ, mean over tuples) and
    ``bias`` (see ``bias_weight``). If the batch holds several views of its samples (``batch.copies``), tuples are of one
    view each, the same tuples in every view, and terms are averaged over the views. Among several processes the rows are
    gathered, so that tuples are of the whole batch. Computed in float32. Samples are not weighted.

    Δ is linear, so over all B!/(B - n)! tuples of a batch both squared distances are
    (1/n₁ + 1/n₂)·Var_i(e_i), for e the student's logits less the labels or the teacher's logits, Var the unbiased variance
    over the batch, and n₁, n₂ the sizes of the groups: so are they computed where the tuples are at most ``tuples``, for any
    n. The size of the groups is then a factor (2 for n = 2, 3/2 for n = 3), and pairs say all that larger groups do. Where
    the tuples are more, so many are drawn, with equal chances and repetition; the mean over the draws is the same.

    What is drawn follows from a seed and a count of steps, both in the checkpoint: it is the same on every device and in
    every process, and no other random numbers move. Memory: a few (B, C) and (B, B) tensors and n² numbers for each
    drawn tuple; ``kd`` takes a few (tuples, C) tensors, 40 MB each for 100,000 tuples of 100 classes.

    Args:
        n: samples in a tuple, at least 2; the authors use 2 and 3.
        tuples: at most so many tuples a step, at least 1.
        classification: weight of the squared distance to the labels' differences, at least 0.
        relation: weight of the squared distance to the teacher's differences, at least 0.
        kd: weight of the divergence, at least 0.
        bias_weight: weight of the squared distance between the batch's mean of the student's logits and of the teacher's,
            mean over classes; at least 0.

    Scale:
        For a student of equal logits classification is 2·(1 - Σ_c p_c²)/C·B/(B - 1) with the batch's class frequencies p: 0.02
        for 100 classes; relation is twice the mean variance of the teacher's logits over the batch: 32 for N(0, 4²).
        relation, kd and bias are zero for equal logits, and relation and kd for logits that differ by the same
        numbers in every sample.

    Differences:
        The authors draw up to 100,000 tuples of the whole training set once, and pass the two groups through the student
        separately, so that batch norm sees either group alone; ours are tuples of samples that are in one batch, from one
        pass, at the cost of the pass alone. Theirs are of a labelled part whose teacher logits are kept; that is a matter of
        the teacher, not of this loss. A constant vector added to all logits changes no difference, so without
        ``bias_weight`` the bias of a final linear layer gets no gradient and stays as it was made, though the prediction
        depends on it: ``bias_weight`` is our addition. kd has no temperature, as there; its mean over the tuples is a choice,
        and so is it that draws may repeat, where theirs are distinct. There is no cross-entropy.
    """

    needs = frozenset({"labels", "logits"})
    batch_coupled = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{|P|\,C} \sum_{(G_1, G_2) \in P} \left( w_y \left\lVert \Delta z^S - \Delta y \right\rVert_2^2 "
        r"+ w_r \left\lVert \Delta z^S - \Delta z^T \right\rVert_2^2 \right) + \frac{w_k}{|P|} \sum_P \mathrm{KL}\!\left( "
        r"\mathrm{softmax}(\Delta z^T) \,\|\, \mathrm{softmax}(\Delta z^S) \right), \quad "
        r"\Delta v = \frac{1}{n_1} \sum_{i \in G_1} v_i - \frac{1}{n_2} \sum_{j \in G_2} v_j"
    )
    paper = Paper("Comparative Knowledge Distillation", 2023, arxiv="2311.02253")
    presets = {"ckd": "ckd()"}
    drawing: Tensor

    def __init__(
        self,
        *,
        n: int = 2,
        tuples: int = 100_000,
        classification: float = 1.0,
        relation: float = 1.0,
        kd: float = 0.0,
        bias_weight: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("n", n, low=2)
        check_whole("tuples", tuples, low=1)
        weights = {"classification": classification, "relation": relation, "kd": kd, "bias_weight": bias_weight}
        for name, value in weights.items():
            check_number(name, value, low=0.0)
        if classification == relation == kd == 0:
            raise SettingError("classification, relation and kd are all 0, so no differences are compared.")
        self.n, self.tuples, self.classification, self.relation = n, tuples, classification, relation
        self.kd, self.bias_weight = kd, bias_weight
        self.minimum_batch = n
        self.needs_teacher = relation > 0 or kd > 0 or bias_weight > 0
        if classification == 0:
            self.needs, self.zero_when_equal = self.needs - {"labels"}, True
        # The seed of the tuples, and how many steps have drawn some.
        self.register_buffer("drawing", torch.zeros(2, dtype=torch.int64))

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        self.to(student.logits.device)
        self.drawing[0] = torch.randint(_MASK, ())

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        self.check_batch_size(len(batch) // batch.copies)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        ours = gather_views(student.logits, batch.copies)
        tuples = self._tuples(ours.shape[1])
        terms = {}
        if self.classification > 0:
            labels = gather_views(batch.labels, batch.copies)
            truth = labels[..., None] == torch.arange(ours.shape[-1], device=labels.device)
            terms["classification"] = self.classification * self._squared(ours, truth.to(ours.dtype), tuples)
        if not self.needs_teacher:
            return terms
        assert teacher.logits is not None
        theirs = gather_views(teacher.logits, batch.copies)
        if self.relation > 0:
            terms["relation"] = self.relation * self._squared(ours, theirs, tuples)
        if self.kd > 0:
            terms["kd"] = self.kd * self._divergence(ours, theirs, tuples)
        if self.bias_weight > 0:
            terms["bias"] = self.bias_weight * _gap_of_means(ours, theirs)
        return terms

    def _tuples(self, samples: int) -> Tensor | None:
        """(P, n) samples of the tuples of this step; None where all are meant."""
        if math.perm(samples, self.n) <= self.tuples:
            return None
        seed, step = self.drawing.unbind()
        drawn = losses.drawn_tuples(samples, self.n, self.tuples, seed, step)
        if self.training:
            self.drawing[1] += 1
        return drawn

    def _squared(self, ours: Tensor, theirs: Tensor, tuples: Tensor | None) -> Tensor:
        return losses.mean_squared_difference(_gap(ours, theirs), self.n, tuples)

    def _divergence(self, ours: Tensor, theirs: Tensor, tuples: Tensor | None) -> Tensor:
        if tuples is None:
            tuples = losses.all_tuples(ours.shape[1], self.n, ours.device)
        differences = (losses.group_differences(rows, tuples) for rows in (ours, theirs))
        return losses.kl_divergence(*differences).mean()


@losses.in_float32
def _gap(ours: Tensor, theirs: Tensor) -> Tensor:
    return ours - theirs


@losses.in_float32
def _gap_of_means(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).mean(dim=1).square().mean()

"""Multi-level logit distillation: samples, batches and classes, at several temperatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_views
from limbeck.errors import SettingError, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class MLKD(Objective, name="mlkd"):
    """Softened KD at several temperatures, with the matrices of inner products of samples and of classes compared as well.

    Logits (B, C). The terms, each a *sum* over the temperatures, are ``instance`` (T² times KD's divergence, mean over
    samples, which are weighted by ``batch.weight``), ``batch`` (the squared distance between the (B, B) matrices P·Pᵀ of the
    two networks' probabilities, over B) and ``class`` (that between the (C, C) matrices Pᵀ·P, over C). If the batch holds
    several views of its samples (``batch.copies``), both kinds of matrices are made of each view on its own, B is the
    samples of one view, and the distances are averaged over the views. Among several processes the rows are gathered, so
    that the matrices are those of the whole batch.

    Args:
        temperatures: the temperatures T > 0 of the softmaxes, a list or tuple.

    Scale:
        instance is the sum of KD at each temperature. For a student of equal logits, 100 classes, 64 samples and a teacher
        whose logits are N(0, 4²), it is about 37, batch is 0.04 and class 0.03. With 256 samples batch is 0.07 and class 0.18:
        what is compared grows with the batch faster than what it is divided by. All are zero for equal logits.

    Differences:
        The authors' code sums over the temperatures, adds up the losses of a weak and a strong view (cross-entropy too) and
        has 0.1 and 0.9 as weights; here the views are averaged, half of that. Their code departs from its own names in three
        ways that are not followed: its masks of unsure samples and classes multiply numbers that are means already, so they
        take about half off the weak view's terms and choose nothing; its strong view's divergences at T = 2 and T = 6 read
        the weak view's logits; its strong view's batch and class terms are computed and never used. Whether the paper means
        masks was not recovered: there are none here. Its batch and class terms have no factor T², and have none here. It is
        published with a RandAugment view beside the plain one, a learning rate of 0.025, and 480 epochs (240 in its settings).
    """

    needs = frozenset({"logits"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \sum_\tau \left( \frac{\tau^2}{B} \sum_i \mathrm{KL}(P^T_i \,\|\, P^S_i) "
        r"+ \frac{1}{B} \left\lVert P^T P^{T\top} - P^S P^{S\top} \right\rVert_F^2 "
        r"+ \frac{1}{C} \left\lVert P^{T\top} P^T - P^{S\top} P^S \right\rVert_F^2 \right), \quad "
        r"P = \mathrm{softmax}(z / \tau)"
    )
    paper = Paper("Multi-Level Logit Distillation", 2023, venue="CVPR")
    presets = {"mlkd": "0.1*ce + 0.9*mlkd()"}

    def __init__(self, *, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0)) -> None:
        super().__init__()
        if not isinstance(temperatures, list | tuple) or not temperatures:
            raise SettingError(f"temperatures must be a list of numbers such as [2, 4], got {temperatures!r}.")
        for temperature in temperatures:
            check_number("each of temperatures", temperature, low=0.0, open_low=True)
        self.temperatures = tuple(temperatures)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        ours, theirs = (gather_views(logits, batch.copies) for logits in (student.logits, teacher.logits))
        terms: dict[str, list[Tensor]] = {"instance": [], "batch": [], "class": []}
        for temperature in self.temperatures:
            divergence = losses.kl_divergence(student.logits, teacher.logits, temperature=temperature)
            samples, classes = _distances(ours, theirs, temperature)
            terms["instance"].append(temperature**2 * losses.mean(divergence, weight=batch.weight))
            terms["batch"].append(samples)
            terms["class"].append(classes)
        return {name: torch.stack(values).sum() for name, values in terms.items()}


@losses.in_float32
def _distances(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Between the matrices of samples and between those of classes, (V, N, C) logits; means over the V views."""
    p_student, p_teacher = torch.softmax(student / temperature, dim=-1), torch.softmax(teacher / temperature, dim=-1)
    of_samples = _distance(p_teacher @ p_teacher.mT, p_student @ p_student.mT)
    return of_samples, _distance(p_teacher.mT @ p_teacher, p_student.mT @ p_student)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=(1, 2)).mean() / one.shape[-1]

"""Attention transfer."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class AT(Objective, name="at"):
    """Squared distance between the attention maps of student and teacher, at every stage that both have.

    Maps (B, C, H, W) of matched stages. The larger of two is averaged to the size of the smaller; each becomes one map per
    sample, the mean over its channels of the squares, divided by its length. Numbers of channels need not agree, and nothing
    is trained. Samples are weighted by ``batch.weight`` when there is one. Computed in float32.

    Scale:
        A stage's share is at most 2/(H·W), since attention maps have no negative entries and unit length: it falls as the
        maps grow. That is why the weight of the presets is 1000. For unrelated ReLU maps of 64 channels on 8×8 positions it is
        about 0.002. Zero when the attention maps agree, whatever the size of the maps.

    Differences:
        The paper sums over stages the length of the difference (not squared) times β/2; here, as in the benchmark of the CRD
        paper, squares are averaged over positions and samples and then summed over stages. The paper's weight is therefore
        not comparable; the 1000 of the presets is the benchmark's.
    """

    needs = frozenset({"features"})
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \sum_l \frac{1}{B H_l W_l} \sum_i \left\lVert A(F^S_{l,i}) - A(F^T_{l,i}) \right\rVert_2^2, \quad "
        r"A(F) = \frac{a}{\lVert a \rVert_2}, \quad a = \frac{1}{C} \sum_c F_c^2"
    )
    paper = Paper(
        "Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer",
        2016,
        arxiv="1612.03928",
    )
    presets = {"at": "ce + 1000*at()", "at+kd": "ce + 1000*at() + kd(temperature=4)"}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        values = [_distances(one, other) for _, one, other in paired(student.features, teacher.features)]
        return {"at": losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}


def _distances(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = losses.align(student, teacher)
    return (losses.attention(student) - losses.attention(teacher)).square().mean(dim=1)

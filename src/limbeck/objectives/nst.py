"""Neuron selectivity transfer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class NST(Objective, name="nst"):
    """Maximum mean discrepancy between the channels of student and teacher, at every stage that both have.

    Maps (B, C, H, W) of matched stages. The larger of two is averaged to the size of the smaller; each channel of a sample,
    divided by its length, is one draw from the sample's distribution of channels, and the draws of the two networks are
    compared with the kernel k(x, y) = ⟨x, y⟩². Numbers of channels need not agree, and nothing is trained. Samples are
    weighted by ``batch.weight`` when there is one. Computed in float32.

    Scale:
        Between 0 and 2 for each stage, whatever the size of the maps. For unrelated ReLU maps of 64 channels on 8×8 positions
        it is about 0.03. Zero when the channels agree as a set, in whatever order.

    Differences:
        Public codes form the products of all pairs of channels with every position, B·C·C·H·W numbers (17 GB for the teacher
        alone at the last stage of a ResNet-50). The same sum comes from matrices of inner products, of channels or of
        positions, whichever costs less. The term that depends on the teacher alone is kept, so that the value is the
        discrepancy. The paper compares one pair of maps; here, as in the benchmark of the CRD paper, all stages are compared.
    """

    needs = frozenset({"features"})
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \sum_l \frac{1}{B} \sum_i \left[ \frac{1}{C_T^2} \sum_{c,d} k(t_c, t_d) "
        r"+ \frac{1}{C_S^2} \sum_{c,d} k(s_c, s_d) - \frac{2}{C_S C_T} \sum_{c,d} k(s_c, t_d) \right], \quad "
        r"k(x, y) = \left\langle \frac{x}{\lVert x \rVert_2}, \frac{y}{\lVert y \rVert_2} \right\rangle^2"
    )
    paper = Paper("Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, arxiv="1707.01219")
    presets = {"nst": "ce + 50*nst()", "nst+kd": "ce + 50*nst() + kd(temperature=4)"}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        pairs = paired(student.features, teacher.features)
        values = [_discrepancies(*losses.align(one, other)) for _, one, other in pairs]
        return {"nst": losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}


@losses.in_float32
def _discrepancies(student: Tensor, teacher: Tensor) -> Tensor:
    ours, theirs = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))
    (_, few, positions), (_, many, _) = ours.shape, theirs.shape
    # Σ_cd ⟨x_c, y_d⟩² is the squared norm of X Yᵀ and the inner product of XᵀX and YᵀY: the discrepancy is a distance of the
    # latter, the matrices of positions, which are the smaller ones at the end of a network and the larger ones before.
    if positions * (few + many) <= few * few + many * many + few * many:
        return (_positions(ours) - _positions(theirs)).square().sum(dim=(1, 2))
    return _kernel(ours, ours) + _kernel(theirs, theirs) - 2 * _kernel(ours, theirs)


def _positions(channels: Tensor) -> Tensor:
    return channels.transpose(1, 2) @ channels / channels.shape[1]


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.transpose(1, 2)).square().mean(dim=(1, 2))

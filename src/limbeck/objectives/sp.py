"""Similarity-preserving distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, last_map


class SP(Objective, name="sp"):
    """Squared distance between the matrices of the inner products of a batch's samples, student's and teacher's.

    The last maps (B, C, H, W) of each network, of any shape: they are never compared with each other, but only the (B, B)
    matrices G of inner products of a network's flattened maps, each row of unit length. Nothing is trained. Computed in
    float32. Among several processes the maps are gathered, so that the matrices are those of the whole batch.

    Scale:
        At most 2/B for maps without negative entries (else 4/B), since the rows of both matrices have unit length. That is why
        the weight of the presets is 3000, at B = 64. Maps that share no structure give less still, about 5e-5 for random ReLU
        maps of 64 channels on 8×8 positions: all their samples are equally alike. Zero when the normalised matrices agree, so
        also for maps times any number.

    Differences:
        As in the benchmark of the CRD paper, the maps of the last stage alone are compared. Inner products are of the maps
        of all processes, where public codes keep to one.
    """

    needs = frozenset({"stages"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{1}{B^2} \left\lVert \tilde{G}^T - \tilde{G}^S \right\rVert_F^2, \quad "
        r"\tilde{G}_i = \frac{G_i}{\lVert G_i \rVert_2}, \quad G = Q Q^\top, \quad Q_i = \mathrm{vec}(F_i)"
    )
    paper = Paper("Similarity-Preserving Knowledge Distillation", 2019, arxiv="1907.09682")
    presets = {"sp": "ce + 3000*sp()", "sp+kd": "ce + 3000*sp() + kd(temperature=4)"}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = (gather_rows(last_map(signals).flatten(1)) for signals in (student, teacher))
        return {"sp": (_similarities(ours) - _similarities(theirs)).square().mean()}


@losses.in_float32
def _similarities(rows: Tensor) -> Tensor:
    return F.normalize(torch.mm(rows, rows.T), dim=1)

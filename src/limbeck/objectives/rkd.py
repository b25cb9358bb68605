"""Relational knowledge distillation: distances and angles between the samples of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import SettingError, check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals

# Samples that are closer than 1e-6 count as one: they have no direction, and their distance has no slope.
_COINCIDENT = 1e-12


class RKD(Objective, name="rkd"):
    """Huber loss between student's and teacher's distances of two samples, and between their angles of three.

    Student embeddings (B, d_S) and teacher embeddings (B, d_T), of any two widths. The terms are ``distance`` (Euclidean
    distances, divided by their mean over the B·(B - 1) pairs) and ``angle`` (for all three samples i, j, k the cosine of the
    angle at i). Nothing is trained. Computed in float32, from the (B, B) squared distances alone; the angles take a few
    (B, B, B) tensors: 1 MB each for B = 64, 4 GB for B = 1024. Among several processes the embeddings are gathered, so
    that B counts the samples of all.

    Args:
        distance: weight of the distances; 0 leaves the term out.
        angle: weight of the angles; 0 leaves the term out.

    Scale:
        Both are zero when the student's embeddings are the teacher's, moved, rotated or times any number but 0. For B = 64
        independent embeddings of normal numbers the distance is 0.19 and the angle 0.43 at d = 64, and 0.05 and 0.10 at
        d = 256; the angle is at most 75. In a batch of two both are zero and teach nothing: there is one distance, which is
        its own mean, and no angle.

    Differences:
        The mean runs over all B² and B³ entries, as in public codes, and so counts pairs of a sample with itself, where both
        are zero. Public codes build the angles from the differences of all pairs, a (B, B, D) tensor; here they are made of
        the squared distances, ⟨h_j - h_i, h_k - h_i⟩ = (d²_ij + d²_ik - d²_jk)/2. Samples that coincide (closer than 1e-6)
        have distance 1e-6 before the division, angles of cosine 0, and no gradient between them. Where public codes have
        several processes, each compares its own samples.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{\lambda_d}{B^2} \sum_{i,j} \ell\!\left( \frac{d^S_{ij}}{\bar{d}^S}, "
        r"\frac{d^T_{ij}}{\bar{d}^T} \right) + \frac{\lambda_a}{B^3} \sum_{i,j,k} \ell(\psi^S_{ijk}, \psi^T_{ijk}), \quad "
        r"\psi_{ijk} = \cos \angle (h_j - h_i, h_k - h_i), \quad \ell = \mathrm{Huber}_{\delta=1}"
    )
    paper = Paper("Relational Knowledge Distillation", 2019, arxiv="1904.05068")
    presets = {"rkd": "ce + rkd()", "rkd+kd": "ce + rkd() + kd(temperature=4)"}

    def __init__(self, *, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        check_number("distance", distance, low=0.0)
        check_number("angle", angle, low=0.0)
        if distance == 0 and angle == 0:
            raise SettingError(
                "distance and angle are both 0, so rkd has nothing to compare; give one of them a weight."
            )
        self.distance, self.angle = distance, angle

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.embedding is not None
        assert teacher.embedding is not None
        ours, theirs = (losses.squared_distances(gather_rows(rows)) for rows in (student.embedding, teacher.embedding))
        terms = {}
        if self.distance > 0:
            terms["distance"] = self.distance * F.huber_loss(_distances(ours), _distances(theirs))
        if self.angle > 0:
            terms["angle"] = self.angle * F.huber_loss(_angles(ours), _angles(theirs))
        return terms


def _distances(squared: Tensor) -> Tensor:
    """Distances over their mean."""
    count = len(squared)
    itself = torch.eye(count, dtype=torch.bool, device=squared.device)
    distances = squared.clamp(min=_COINCIDENT).sqrt().masked_fill(itself, 0.0)
    return distances / (distances.sum() / (count * (count - 1)))


def _angles(squared: Tensor) -> Tensor:
    """[i, j, k]: cosine of the angle at i between the directions of j and k; 0 where one of them coincides with i."""
    coincident = squared <= _COINCIDENT
    inverse = squared.masked_fill(coincident, torch.inf).rsqrt()
    products = (squared[:, :, None] + squared[:, None, :] - squared[None, :, :]) / 2
    return products * inverse[:, :, None] * inverse[:, None, :]

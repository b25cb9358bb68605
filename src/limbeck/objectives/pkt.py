"""Probabilistic knowledge transfer."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals

_EPSILON = 1e-7


class PKT(Objective, name="pkt"):
    """Divergence between how similar each sample is to the others, student's and teacher's.

    Student embeddings (B, d_S) and teacher embeddings (B, d_T), of any two widths: only (B, B) matrices are compared. Each
    network's cosines, brought to [0, 1], are made probabilities by dividing each row by its sum; the row's own sample is
    among them. Nothing is trained. Computed in float32. Among several processes the embeddings are gathered, so that the
    matrices are those of the whole batch.

    Scale:
        Near 0, for rows of B nearly equal probabilities are compared and the mean runs over all B² of them: for B = 64
        independent embeddings of normal numbers 2e-4 at d = 64 and 6e-5 at d = 256. That is why the weight of the presets is
        30000. Zero when the cosines agree, so for embeddings times any positive number; it may be below zero by rounding and
        by ε.

    Differences:
        The paper's loss is a sum over pairs; the mean over the B² entries and ε = 1e-7 are those of the public codes.
        Cosines are of the embeddings of all processes, where public codes keep to one. A sample whose embedding is zero is
        orthogonal to all; here it gets no gradient, there one that is divided by 1e-7.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{1}{B^2} \sum_{i,j} P^T_{ij} \log \frac{P^T_{ij} + \varepsilon}{P^S_{ij} + \varepsilon}, \quad "
        r"P_{ij} = \frac{s_{ij}}{\sum_k s_{ik}}, \quad s_{ij} = \frac{\cos(h_i, h_j) + 1}{2}"
    )
    paper = Paper("Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, arxiv="1803.10837")
    presets = {"pkt": "ce + 30000*pkt()", "pkt+kd": "ce + 30000*pkt() + kd(temperature=4)"}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.embedding is not None
        assert teacher.embedding is not None
        ours, theirs = (_probabilities(gather_rows(rows)) for rows in (student.embedding, teacher.embedding))
        return {"pkt": (theirs * ((theirs + _EPSILON) / (ours + _EPSILON)).log()).mean()}


def _probabilities(rows: Tensor) -> Tensor:
    similarities = losses.cosine_kernel(rows)
    return similarities / similarities.sum(dim=1, keepdim=True)

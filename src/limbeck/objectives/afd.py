"""Attention-based feature distillation: each stage of the teacher is learned by the student's stages that are like it."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.objectives._stage_attention import StagePairs
from limbeck.objectives.base import Paper


class AFD(StagePairs, name="afd"):
    """Mean squared distances of the attention maps of all pairs of stages, weighted by a learned attention.

    Stages (B, C, H, W) of both networks, matched or not, of any number, channels and sizes. The value of a stage is the mean
    over its channels of the squares, of unit length; the student's is brought to the size of the teacher's by averages over
    regions before it gets unit length. Each stage of the teacher divides a weight of 1 among the student's: its query and the
    keys of the student's stages come from trained heads that read the mean over the positions of each map, and the weights
    are the softmax of their products. Computed in float32. The heads train with the student and are discarded after training.
    Samples are weighted by ``batch.weight``. ``attention.STUDENT.TEACHER`` in the metrics is the mean weight of a pair over
    the samples since the epoch began.

    The heads hold about dim² weights for each stage of the teacher and dim for each channel of both networks' stages; a step
    holds B · S · T · dim numbers for their products (S, T: how many stages the student and the teacher have).

    Args:
        dim: width of queries and keys.
        attention: "learned"; or, as controls without heads, "uniform" (each of the student's stages has the same weight) and
            "diagonal" (a stage of the teacher is learned by the one of the student that ends at the nearest share of its
            network's depth, the deeper of two that are as near; with equally many stages the first by the first, and so on).

    Scale:
        A sum over the teacher's stages, each at most 2/(H·W) of its maps: values have no negative entries and unit length. For
        three stages of unrelated ReLU maps (64 channels, sides 32, 16 and 8) it is about 0.002. That is why the published
        weight is 200. Zero for equal networks with diagonal attention, or where each has one stage; otherwise equal networks
        still differ stage by stage. A map of one position has the value 1 whatever it holds, so such a stage of the teacher
        teaches nothing.

    Differences:
        Formula and heads are those of the authors' code, whose sum is the preset ``afd+kd`` (240 epochs, learning rate 0.05,
        batches of 64). There the stages are the outputs of all residual blocks (18 of a WRN-40-2, 6 of a WRN-16-2); here they
        are those that the networks' taps name, and the scale grows with their number. Biases that cannot have an effect
        are left out: those before a batch norm, and that of the keys' last batch norm, which is the same for all keys of a
        query. For a student with one stage the attention is 1, and has no heads. The values are not held fixed, as in that
        code: the attention may run to pairs that are alike anyway, where the loss falls and the student learns little, which
        is what the two controls show. A batch norm takes its statistics from the samples of one process, and from small
        batches (below 16 or so) poorly.
    """

    chooser = "teacher"
    formula = (
        r"\mathcal{L} = \frac{1}{B} \sum_i \sum_t \sum_s a_{its} \, \frac{1}{H_t W_t} "
        r"\left\lVert A(F^S_{is}) - A(F^T_{it}) \right\rVert_2^2, \quad "
        r"a_{it} = \mathrm{softmax}_s \frac{\langle q_{it}, k_{ist} \rangle + \langle p_t, p_s \rangle}{\sqrt{d}}"
    )
    paper = Paper(
        "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature Matching",
        2021,
        arxiv="2102.02973",
        venue="AAAI",
    )
    presets = {"afd": "ce + 200*afd()", "afd+kd": "ce + 200*afd() + 0.9*kd(temperature=4)"}

    def __init__(self, *, dim: int = 128, attention: str = "learned") -> None:
        super().__init__(dim=dim, attention=attention)

    def divide(self, similarities: Tensor) -> Tensor:
        return torch.softmax(similarities, dim=-1)

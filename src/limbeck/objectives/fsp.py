"""Flow of the solution procedure: how the channels of neighbouring stages go together."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class FSP(Objective, name="fsp"):
    """Squared distance between the FSP matrices of student and teacher: channel by channel products of neighbouring taps.

    The taps are the stem and the stages that both networks have, from shallow to deep. The matrix M (C_l, C_{l+1}) of two
    neighbours is the mean over positions of the products of their channels; the larger map of the two is averaged to the
    size of the smaller first. Student and teacher may differ in height and width, not in channels: the stem and every stage
    need equally many, which two networks of one family and width have. Samples are weighted by ``batch.weight``.

    Args:
        init_epochs: epochs in which the student trains on this loss alone before the main stage, of which it is then no
            part; 0 makes it an ordinary loss of the main stage.

    Scale:
        Zero when the matrices agree. Maps k times as large make it k⁴ times as large.

    Differences:
        As in the benchmark of RepDistiller, the main stage after the first is cross-entropy alone, and the first has the
        loss at weight 1: the 50 of the preset is the benchmark's setting and acts with init_epochs=0 only, where it is
        untried. Public codes form the (B, C_l, C_{l+1}, H, W) products before they average them; here it is one batched
        matrix product.
    """

    needs = frozenset({"features", "stem"})
    zero_when_equal = True
    equal_channels = True
    formula = (
        r"M_l = \frac{1}{H W} \sum_{p} F_l(p) F_{l+1}(p)^\top, \quad "
        r"\mathcal{L} = \frac{1}{B} \sum_i \sum_l \frac{1}{C_l C_{l+1}} \| M^S_{il} - M^T_{il} \|_F^2"
    )
    paper = Paper(
        "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
        2017,
        venue="CVPR",
    )
    presets = {"fsp": "ce + 50*fsp()", "fsp+kd": "ce + 50*fsp() + kd(temperature=4)"}

    def __init__(self, *, init_epochs: int = 30) -> None:
        super().__init__()
        check_whole("init_epochs", init_epochs, low=0)
        self.init_epochs = init_epochs

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.stem is not None
        assert teacher.stem is not None
        pairs = paired(student.features, teacher.features)
        ours = [student.stem, *(one for _, one, _ in pairs)]
        theirs = [teacher.stem, *(other for _, _, other in pairs)]
        values = [
            losses.squared_error(_matrix(*one), _matrix(*other))
            for one, other in zip(pairwise(ours), pairwise(theirs), strict=True)
        ]
        return {"fsp": losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}


@losses.in_float32
def _matrix(shallow: Tensor, deep: Tensor) -> Tensor:
    """(B, C, D) from (B, C, H, W) and (B, D, H', W'): mean over positions of the products of channels."""
    shallow, deep = losses.align(shallow, deep)
    positions = shallow.shape[-2] * shallow.shape[-1]
    return shallow.flatten(2) @ deep.flatten(2).transpose(1, 2) / positions

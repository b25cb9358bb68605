"""Overhaul of feature distillation: pre-activations, and the part of them that the next ReLU lets pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class OFD(Objective, name="ofd"):
    """Squared distance of pre-activations where it matters: negative responses of the teacher need no copy.

    Maps (B, C, H, W) before the last ReLU of each stage that both networks have. The student's pass a 1×1 convolution and a
    batch norm each to the teacher's channels; of two sizes the larger map is averaged to the smaller first. A teacher's
    response t is raised to the margin m of its channel, the mean of its negative responses, and a response below zero
    counts only where the student is above it. m follows from the shift and scale of the batch norm before the map, so such a
    batch norm is needed. Samples are weighted by ``batch.weight``.

    Scale:
        A sum over channels and positions. The connectors' batch norm makes the student's responses N(0, 1) at
        initialisation, and an element then costs 1.6 for a teacher whose responses are N(0, 1): 78,000 in all for the
        stages of resnet32x4. Hence the weight of 1e-3 (the public code uses 1e-4 for ImageNet). It is zero where the student
        behind its connectors agrees.

    Differences:
        The teacher is in eval mode throughout. The original code and mdistiller leave it in train mode, where its own batch
        norm follows the batch and its running statistics move. The pooling of unequal sizes is ours. The heads' batch norm
        takes its statistics from the samples of one process, so two processes differ a little from one with all samples.
    """

    needs = frozenset({"preactivations"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{B} \sum_{l=1}^{L} 2^{-(L-l)} \sum_{i,c,p} d(r(F^S_l)_{icp}, \max(F^T_{l,icp}, m_c)), \quad "
        r"d(s, t) = (s - t)^2 \, 1[s > t \vee t > 0], \quad "
        r"m_c = \mathrm{E}[x \mid x < 0], \quad x \sim \mathrm{N}(\beta_c, \gamma_c^2)"
    )
    paper = Paper("A Comprehensive Overhaul of Feature Distillation", 2019, arxiv="1904.01866")
    presets = {"ofd": "ce + 1e-3*ofd()"}

    def __init__(self) -> None:
        super().__init__()
        self.connectors = nn.ModuleList()

    def build(self, student: Signals, teacher: Signals) -> None:
        pairs = paired(student.preactivations, teacher.preactivations)
        self.connectors = nn.ModuleList(_connector(one.shape[1], other.shape[1]) for _, one, other in pairs)
        for number, (name, _, _) in enumerate(pairs):
            self.register_buffer(f"margin{number}", self._margin_of(name, teacher))
        self.to(pairs[0][1].device)

    def _margin_of(self, name: str, teacher: Signals) -> Tensor:
        shift, scale = (teacher.constants.get(f"{name}.{kind}") for kind in ("shift", "scale"))
        if shift is None or scale is None:
            raise SignalError(
                f"{self.expression()} needs a batch norm before each tapped map of the teacher, for its margins, and none "
                f"is known before '{name}'."
            )
        return _margins(shift, scale)[:, None, None]

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if not self.connectors:
            raise SettingError(
                "ofd has no connectors yet: call build(student, teacher) before you create the optimizer."
            )
        pairs = paired(student.preactivations, teacher.preactivations)
        values = []
        for number, ((_, one, other), connector) in enumerate(zip(pairs, self.connectors, strict=True)):
            weight = 0.5 ** (len(pairs) - 1 - number)
            one, other = losses.align(one, other)
            values.append(weight * _partial_distance(connector(one), other, getattr(self, f"margin{number}")))
        return {"ofd": losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}


def _connector(channels: int, out: int) -> nn.Module:
    # The batch norm takes any bias away again, so the convolution has none.
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))


def _margins(shift: Tensor, scale: Tensor) -> Tensor:
    """E[x | x < 0] of x ~ N(shift, scale²) by channel; -3·|scale| where x < 0 has a probability of at most 0.001."""
    mean, deviation = shift.detach().double(), scale.detach().abs().double()
    # A batch norm may have a scale of zero; it is then a constant and the limits below are right.
    ratio = mean / deviation.clamp(min=torch.finfo(torch.float64).tiny)
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / below.clamp(min=1e-3)
    margins = torch.where(below > 1e-3, expected, -3 * deviation)
    return margins.to(torch.promote_types(shift.dtype, torch.float32))


@losses.in_float32
def _partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """(B,) sums over channels and positions of (B, C, H, W) maps."""
    target = torch.maximum(teacher, margin)
    counts = (student > target) | (target > 0)
    return (student - target).square().where(counts, 0.0).sum(dim=(1, 2, 3))

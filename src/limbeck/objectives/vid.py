"""Variational information distillation."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired

_INITIAL_VARIANCE, _LEAST_VARIANCE = 5.0, 1e-5


class VID(Objective, name="vid"):
    """How unlikely the teacher's maps are, given the student's, under a Gaussian whose mean and variances are learned.

    Maps (B, C, H, W) of matched stages. The larger of two is averaged to the size of the smaller. For each stage the mean μ
    comes from the student's map by three 1×1 convolutions without bias, with ReLUs between them, and there is one variance
    for each of the teacher's channels. Samples are weighted by ``batch.weight`` when there is one. The likelihood is computed
    in float32. Convolutions and variances are discarded after training.

    Scale:
        Each stage starts at ½·log 5 ≈ 0.80 plus a tenth of the mean square of (μ - teacher's map), since the variances start
        at 5. There is no lower bound at zero: half the logarithm of the variances becomes negative as they fall below 1, to
        -5.8 where they reach their floor of 1e-5.

    Differences:
        The constant ½·log 2π is left out, as in public codes; the paper sums over positions where they and we take the mean.
        Variances are parameters here: mdistiller keeps its in a plain list, so that the optimizer never sees them and they
        stay at 5. Weight decay leaves them alone; in the benchmark of the CRD paper it pulls them towards 0.69.
    """

    needs = frozenset({"features"})
    formula = (
        r"\mathcal{L} = \sum_l \frac{1}{B C_l H_l W_l} \sum_{i,c,h,w} \frac{1}{2} \left[ "
        r"\frac{(\mu_l(F^S_{l,i}) - F^T_{l,i})^2_{chw}}{\sigma_{l,c}^2} + \log \sigma_{l,c}^2 \right], \quad "
        r"\sigma^2 = \mathrm{softplus}(\rho) + 10^{-5}"
    )
    paper = Paper("Variational Information Distillation for Knowledge Transfer", 2019, arxiv="1904.05835")
    presets = {"vid": "ce + vid()", "vid+kd": "ce + vid() + kd(temperature=4)"}

    def __init__(self) -> None:
        super().__init__()
        self.gaussians = nn.ModuleList()

    def build(self, student: Signals, teacher: Signals) -> None:
        pairs = paired(student.features, teacher.features)
        # In the order of the pairs: a stage's name may hold dots, which no module's name can.
        self.gaussians = nn.ModuleList(
            _Gaussian(one.shape[1], other.shape[1]).to(one.device) for _, one, other in pairs
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if not self.gaussians:
            raise SettingError(
                "vid has no convolutions yet: call build(student, teacher) before you create the optimizer."
            )
        pairs = paired(student.features, teacher.features)
        values = [
            gaussian(*losses.align(one, other)) for gaussian, (_, one, other) in zip(self.gaussians, pairs, strict=True)
        ]
        return {"vid": losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}

    def monitors(self) -> dict[str, Tensor]:
        return {f"variance{n}": g.variances().detach().mean() for n, g in enumerate(self._each(), start=1)}

    def no_weight_decay(self) -> set[str]:
        return {f"gaussians.{number}.raw_variances" for number in range(len(self.gaussians))}

    def _each(self) -> list[_Gaussian]:
        return [gaussian for gaussian in self.gaussians if isinstance(gaussian, _Gaussian)]


class _Gaussian(nn.Module):
    """-log density of a teacher's map given a student's, the mean over channels and positions, (B,)."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        widths = (student_channels, teacher_channels, teacher_channels, teacher_channels)
        first, second, third = (nn.Conv2d(a, b, kernel_size=1, bias=False) for a, b in pairwise(widths))
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        # The inverse of variances(): softplus(ρ) = v - floor.
        start = math.log(math.expm1(_INITIAL_VARIANCE - _LEAST_VARIANCE))
        self.raw_variances = nn.Parameter(torch.full((teacher_channels,), start))

    def variances(self) -> Tensor:
        """(C,) variances of the teacher's channels."""
        return F.softplus(self.raw_variances) + _LEAST_VARIANCE

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _surprise(self.mean(student), teacher, self.variances())


@losses.in_float32
def _surprise(mean: Tensor, teacher: Tensor, variances: Tensor) -> Tensor:
    # Over the positions first: they share a channel's variance.
    errors = (mean - teacher).square().mean(dim=(2, 3))
    return (errors / variances + variances.log()).mean(dim=1) / 2

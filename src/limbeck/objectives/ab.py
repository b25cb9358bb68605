"""Activation boundaries: which neurons fire, before the student learns anything else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError, check_number, check_whole
from limbeck.objectives._regressors import regressor
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class AB(Objective, name="ab"):
    """Squared hinge on the student's pre-activations: each is on the teacher's side of zero, by a margin.

    Maps (B, C, H, W) before the last ReLU of each stage that both networks have. The student's pass a trained convolution
    and a batch norm to the teacher's shape, without ReLU; maps that agree in shape are compared as they are. Only the sign of
    the teacher's response counts. The deepest stage has weight 1, each before it half of the next. Samples are weighted by
    ``batch.weight``.

    Args:
        margin: how far beyond zero the student's response must be; a response beyond it costs nothing.
        init_epochs: epochs in which the student trains on this loss alone before the main stage, of which it is then no
            part; 0 makes it an ordinary loss of the main stage.

    Scale:
        A sum over channels and positions times 3/1000. An element behind a batch norm costs 1.92 at initialisation (margin
        1), so the loss starts near 0.0058·Σ_l 2^-(L-l)·C_l·H_l·W_l: 284 for heads to the stages of
        resnet32x4. It is not zero for a
        student that equals the teacher where responses lie within the margin.

    Differences:
        As in the benchmark of RepDistiller, the main stage after the first is cross-entropy alone, and a weight before
        ab() acts with init_epochs=0 only; the paper has distillation on logits there, which is the preset ab+kd.
        The batch norm of the heads takes its statistics from the samples of one process, so two processes differ a little
        from one with all samples; batches are not split for the same reason, even where no head was needed.
    """

    needs = frozenset({"preactivations"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{3}{1000 B} \sum_{l=1}^{L} 2^{-(L-l)} \sum_{i,c,p} \left( "
        r"\max(0, s + m)^2 \, 1[t \le 0] + \max(0, m - s)^2 \, 1[t > 0] \right), \quad "
        r"s = r(F^S_l)_{icp}, \quad t = F^T_{l,icp}"
    )
    paper = Paper(
        "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
        2019,
        arxiv="1811.03233",
    )
    presets = {"ab": "ce + ab()", "ab+kd": "ce + ab() + kd(temperature=4)"}

    def __init__(self, *, margin: float = 1.0, init_epochs: int = 30) -> None:
        super().__init__()
        check_number("margin", margin, low=0.0)
        check_whole("init_epochs", init_epochs, low=0)
        self.margin, self.init_epochs = margin, init_epochs
        self.connectors = nn.ModuleList()

    def build(self, student: Signals, teacher: Signals) -> None:
        pairs = paired(student.preactivations, teacher.preactivations)
        self.connectors = nn.ModuleList(self._connector(*pair) for pair in pairs)
        self.to(pairs[0][1].device)

    def _connector(self, name: str, student: Tensor, teacher: Tensor) -> nn.Module:
        try:
            return regressor(student.shape, teacher.shape, relu=False)
        except SignalError as error:
            raise SignalError(f"{self.expression()} cannot compare '{name}': {error}") from None

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if not self.connectors:
            raise SettingError(
                "ab has no connectors yet: call build(student, teacher) before you create the optimizer."
            )
        pairs = paired(student.preactivations, teacher.preactivations)
        values = []
        for number, ((_, one, other), connector) in enumerate(zip(pairs, self.connectors, strict=True)):
            weight = 0.5 ** (len(pairs) - 1 - number)
            values.append(weight * _hinge(connector(one), other, margin=self.margin))
        return {"ab": 3e-3 * losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}


@losses.in_float32
def _hinge(student: Tensor, teacher: Tensor, *, margin: float) -> Tensor:
    """(B,) sums over channels and positions of (B, C, H, W) maps."""
    short = torch.where(teacher > 0, margin - student, margin + student)
    return short.relu().square().sum(dim=(1, 2, 3))

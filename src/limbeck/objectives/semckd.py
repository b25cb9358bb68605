"""Semantic calibration: each stage of the student learns from all stages of the teacher, as much as they are alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class SemCKD(Objective, name="semckd"):
    """Mean squared distances of all pairs of a student's and a teacher's stage, weighted by a learned attention.

    Stages (B, C, H, W) of both networks, matched or not, of any number, channels and sizes. For each pair the larger map is
    averaged to the size of the smaller and the student's is projected to the teacher's channels (1×1, 3×3 and 1×1
    convolutions). The attention of sample i: row i of a stage's (B, B) Gram matrix of flattened maps passes a small network
    (one for each stage) to a unit vector of B/4 numbers; the products of a student stage's vector with those of the teacher's
    stages pass a softmax. It is computed in float32. The heads are discarded after training. Samples are weighted by
    ``batch.weight``.

    The rows make the batch size part of the heads: it is that of the batch they were built with. A smaller batch is filled
    up with zeros, a larger one is refused. The order of the samples in a batch matters for the same reason, and each process
    keeps to its own samples.

    Scale:
        A mean over samples and over the student's stages of mean squared distances: about the mean square of the teacher's
        maps at initialisation. The authors' weight is 400 for CIFAR (the preset) and 50 for ImageNet.

    Differences:
        Public codes register linear layers that nothing uses, and fail on the last, smaller batch of an epoch. As in
        the authors' code the hidden width of the attention's networks is B/2, the projection has twice the teacher's channels
        inside, with batch norm and ReLU between its convolutions, and the gradient flows through the attention into the
        student too. For a teacher with one stage the attention is 1, and has no networks.
    """

    needs = frozenset({"stages"})
    batch_coupled = True
    local_negatives = True
    order_free = False
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{B L_S} \sum_i \sum_{s,t} a_{ist} \, \mathrm{MSE}(\mathrm{proj}_{st}(F^S_{is}), F^T_{it}), "
        r"\quad a_{is} = \mathrm{softmax}_t(\langle q_s(G^S_{is}), k_t(G^T_{it}) \rangle), \quad G = X X^\top"
    )
    paper = Paper("Cross-Layer Distillation with Semantic Calibration", 2021, arxiv="2012.03236")
    presets = {"semckd": "ce + kd(temperature=4) + 400*semckd()"}

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 0
        self.queries, self.keys, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()

    def build(self, student: Signals, teacher: Signals) -> None:
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        self.batch_size = len(ours[0])
        # A softmax over one stage is 1 whatever the networks say, so they would never learn.
        if len(theirs) > 1:
            self.queries = nn.ModuleList(_RowNetwork(self.batch_size) for _ in ours)
            self.keys = nn.ModuleList(_RowNetwork(self.batch_size) for _ in theirs)
        self.projections = nn.ModuleDict(
            {
                f"{s}_{t}": _projection(one.shape[1], other.shape[1])
                for s, one in enumerate(ours)
                for t, other in enumerate(theirs)
            }
        )
        self.to(ours[0].device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        self._check_size(len(ours[0]))
        distances = [
            torch.stack([self._pair(s, t, one, other) for t, other in enumerate(theirs)], dim=1)
            for s, one in enumerate(ours)
        ]
        values = (self._attention(ours, theirs) * torch.stack(distances, dim=1)).sum(dim=(1, 2)) / len(ours)
        return {"semckd": losses.mean(values, weight=batch.weight)}

    def _check_size(self, size: int) -> None:
        if not self.projections:
            raise SettingError("semckd has no heads yet: call build(student, teacher) before you create the optimizer.")
        if size > self.batch_size:
            raise SignalError(
                f"{self.expression()} was built for batches of {self.batch_size} samples, since its attention reads rows of "
                f"a matrix of all samples of a batch, and got {size}: smaller batches are filled up, larger ones cannot be "
                "read."
            )

    def _pair(self, s: int, t: int, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = losses.align(student, teacher)
        return losses.squared_error(self.projections[f"{s}_{t}"](student), teacher)

    def _attention(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """(B, S, T) weights of the teacher's stages for each stage of the student; they sum to 1."""
        if not self.keys:
            return ours[0].new_ones(len(ours[0]), len(ours), 1)
        queries = [network(maps) for network, maps in zip(self.queries, ours, strict=True)]
        keys = [network(maps) for network, maps in zip(self.keys, theirs, strict=True)]
        return _match(torch.stack(queries, dim=1), torch.stack(keys, dim=1))


class _RowNetwork(nn.Module):
    """Unit vectors (B, D) of the rows of a stage's Gram matrix."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        # A unit vector of one number is ±1 and cannot learn.
        size = max(2, batch_size // 4)
        self.batch_size = batch_size
        self.layers = nn.Sequential(nn.Linear(batch_size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    @losses.in_float32
    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(1)
        rows = F.pad(flat @ flat.T, (0, self.batch_size - len(flat)))
        return F.normalize(self.layers(rows), dim=-1)


def _projection(channels: int, out: int) -> nn.Module:
    # Before a batch norm a bias has no effect.
    return nn.Sequential(
        nn.Conv2d(channels, 2 * out, 1, bias=False),
        nn.BatchNorm2d(2 * out),
        nn.ReLU(),
        nn.Conv2d(2 * out, 2 * out, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * out),
        nn.ReLU(),
        nn.Conv2d(2 * out, out, 1, bias=False),
    )


@losses.in_float32
def _match(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.softmax(queries @ keys.transpose(1, 2), dim=-1)

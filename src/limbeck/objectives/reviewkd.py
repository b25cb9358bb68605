"""Knowledge review: the student's shallow stages learn from the teacher's through the deeper ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired

_MIDDLE = 512


class ReviewKD(Objective, name="reviewkd"):
    """Hierarchical distances between the teacher's stages and the student's, fused from deep to shallow.

    Stage maps (B, C, H, W) that both networks have, and the embeddings (B, D) as maps of one position, the deepest stage.
    From deep to shallow, a stage of the student passes a 1×1 convolution and a batch norm to the common width
    min(512, d_S); the fused map of the deeper stages is brought to its size and added, each with a sigmoid gate by position;
    the sum, in the teacher's size, passes a 3×3 convolution and a batch norm to the teacher's channels. What comes out is
    compared with the teacher's map before its last ReLU, as it is and averaged to 4×4, 2×2 and 1×1 (those smaller than the
    map). Any number of stages, channels and sizes. The heads are discarded after training. Samples are weighted by
    ``batch.weight``.

    Args:
        warmup_epochs: the loss grows linearly over so many epochs, epoch by epoch, from 1/warmup_epochs to its full size; 0
            for none. Loops that never call ``start_epoch`` have it at its full size.

    Scale:
        A sum over stages + 1 of mean squared distances; the heads' batch norm makes the student's side N(0, 1) at
        initialisation. The authors' weights by pair: WRN-40-2 → WRN-16-2 and WRN-40-1, WRN → ShuffleNetV1, resnet32x4 →
        resnet8x4 and ShuffleNetV1: 5; resnet32x4 → ShuffleNetV2: 8; resnet56 → resnet20: 0.6; resnet110 → resnet32: 1. The
        preset has 5.

    Differences:
        The authors train with another protocol (batch 128, learning rate 0.1, Nesterov, best test epoch); the loss here
        goes with any. As in mdistiller's code the student's maps are those after the last ReLU, the common width is taken
        from the student's embedding and the k-th pooled size that is used weighs 2^-k. Other than there, layers start as
        PyTorch starts them, and a map that has to become smaller is averaged over regions. The heads' batch norm takes its
        statistics from the samples of one process, so two processes differ a little from one with all samples.
    """

    needs = frozenset({"features", "preactivations", "embedding"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = w_{\mathrm{epoch}} \sum_l \mathrm{HCL}(u_l, F^T_l), \quad u_l = g_l(v_l), \quad "
        r"v_l = a_l \odot f_l(F^S_l) + a'_l \odot \mathrm{up}(v_{l+1}), \quad "
        r"\mathrm{HCL}(u, F) = \frac{\mathrm{MSE}(u, F) + \sum_k 2^{-k} \, \mathrm{MSE}(\mathrm{pool}_k(u), "
        r"\mathrm{pool}_k(F))}{1 + \sum_k 2^{-k}}"
    )
    paper = Paper("Distilling Knowledge via Knowledge Review", 2021, arxiv="2104.09044")
    presets = {"reviewkd": "ce + 5*reviewkd()"}

    warmup: Tensor

    def __init__(self, *, warmup_epochs: int = 20) -> None:
        super().__init__()
        check_whole("warmup_epochs", warmup_epochs, low=0)
        self.warmup_epochs = warmup_epochs
        self.fusions = nn.ModuleList()
        self.register_buffer("warmup", torch.ones(()))

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        width = min(_MIDDLE, student.embedding.shape[-1])
        self.fusions = nn.ModuleList(
            _Fusion(one.shape[1], width, other.shape[1], deepest=number == 0)
            for number, (one, other) in enumerate(_from_deep(student, teacher))
        )
        self.to(student.embedding.device)

    def start_epoch(self, epoch: int) -> None:
        self.warmup.fill_(min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if not self.fusions:
            raise SettingError(
                "reviewkd has no heads yet: call build(student, teacher) before you create the optimizer."
            )
        values, fused = [], None
        for fusion, (one, other) in zip(self.fusions, _from_deep(student, teacher), strict=True):
            fused, answer = fusion(one, fused, other.shape[-2:])
            values.append(_context_distance(answer, other))
        return {"reviewkd": self.warmup * losses.mean(torch.stack(values).sum(dim=0), weight=batch.weight)}

    def monitors(self) -> dict[str, Tensor]:
        return {"warmup": self.warmup.detach().clone()}


def _from_deep(student: Signals, teacher: Signals) -> list[tuple[Tensor, Tensor]]:
    assert student.embedding is not None
    assert teacher.embedding is not None
    pairs = [(one, other) for _, one, other in paired(student.features, teacher.preactivations)]
    return [(student.embedding[:, :, None, None], teacher.embedding[:, :, None, None]), *reversed(pairs)]


class _Fusion(nn.Module):
    """One step of the review. Gives the fused map for the next step, and what is compared with the teacher's map."""

    def __init__(self, channels: int, width: int, out: int, *, deepest: bool) -> None:
        super().__init__()
        # Batch norms follow, so the convolutions before them need no bias.
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.gates = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.leave = nn.Sequential(nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        fused = self.enter(maps)
        if self.gates is not None and deeper is not None:
            deeper = _resize(deeper, (fused.shape[-2], fused.shape[-1]))
            own, other = self.gates(torch.cat([fused, deeper], dim=1)).sigmoid().split(1, dim=1)
            fused = own * fused + other * deeper
        return fused, self.leave(_resize(fused, size))


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps in another size: positions are repeated where it grows, averaged over regions where it shrinks."""
    height, width = maps.shape[-2:]
    smaller = (min(height, size[0]), min(width, size[1]))
    if smaller != (height, width):
        maps = F.adaptive_avg_pool2d(maps, smaller)
    return maps if smaller == tuple(size) else F.interpolate(maps, size=tuple(size), mode="nearest")


@losses.in_float32
def _context_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) hierarchical context losses of (B, C, H, W) maps."""
    difference = student - teacher
    total, weights, weight = difference.square().mean(dim=(1, 2, 3)), 1.0, 1.0
    for side in (4, 2, 1):
        if side < min(difference.shape[-2:]):
            weight /= 2
            pooled = F.adaptive_avg_pool2d(difference, side)
            total, weights = total + weight * pooled.square().mean(dim=(1, 2, 3)), weights + weight
    return total / weights

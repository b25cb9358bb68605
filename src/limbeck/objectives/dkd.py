"""Decoupled knowledge distillation: the label's class and the others apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError, SignalError, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, cleared, counted


class DKD(Objective, name="dkd"):
    """Softened KD in two parts with weights of their own: how sure of the label, and how the other classes share the rest.

    Logits (B, C) with labels (B,) int64, or (B, L, C) with labels (B, L) and the student's mask (B, L). The terms are
    ``target`` (α times the divergence between the pairs of the label's probability and that of all others together) and
    ``non_target`` (β times the divergence between the softmaxes over the C - 1 other classes). Samples are weighted by
    ``batch.weight``.

    Args:
        alpha: α ≥ 0, weight of the label's part.
        beta: β ≥ 0, weight of the other classes' part.
        temperature: T > 0; all softmaxes are taken at logits/T, and both terms are multiplied by T².
        warmup_epochs: both terms grow linearly over so many epochs, epoch by epoch, from 1/warmup_epochs to their full size;
            0 for none. Loops that never call ``start_epoch`` have them at their full size.

    Scale:
        KD is target + (1 - p)·non_target for α = β = 1, p the teacher's probability of the label; so non_target is not made
        small by a teacher that is sure. Both are zero for equal logits, non_target for logits of two classes as well. For a
        student of equal logits, 100 classes and a teacher whose logits are N(0, 4²) with the label's the greatest, target
        is 1.7 and non_target 6.6 before α and β. The authors' β by pair, all at α = 1, T = 4 and 20 epochs of warm-up: resnet56
        → resnet20 and resnet110 → resnet32: 2; WRN-40-2 → WRN-16-2 and WRN-40-1, vgg13 → vgg8 and MobileNetV2: 6;
        resnet32x4 → resnet8x4 (the preset's), ShuffleNetV1 and ShuffleNetV2, ResNet50 → MobileNetV2, WRN-40-2 →
        ShuffleNetV1: 8. On ImageNet T = 1, 1 epoch of warm-up, and β = 0.5 for ResNet34 → ResNet18, 2 for ResNet50 →
        MobileNetV1.

    Differences:
        The authors' code hides the label's class by taking 1000 from its logit, which float16 rounds and a larger logit
        outweighs, and takes the logarithm of a sum of probabilities, which is infinite where it underflows. Here the class
        is left out, and the probability of the others is summed as logarithms. Their published numbers are best epochs.
    """

    needs = frozenset({"labels", "logits"})
    per_position = True
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = w_{\mathrm{epoch}} \frac{T^2}{B} \sum_i \left( \alpha \, \mathrm{KL}(b^T_i \,\|\, b^S_i) "
        r"+ \beta \, \mathrm{KL}(\hat{p}^T_i \,\|\, \hat{p}^S_i) \right), \quad p = \mathrm{softmax}(z / T), \quad "
        r"b = (p_y, \, 1 - p_y), \quad \hat{p}_c = \frac{p_c}{1 - p_y} \; (c \neq y)"
    )
    paper = Paper("Decoupled Knowledge Distillation", 2022, arxiv="2203.08679")
    presets = {"dkd": "ce + dkd(beta=8)"}

    warmup: Tensor

    def __init__(
        self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, warmup_epochs: int = 20
    ) -> None:
        super().__init__()
        check_number("alpha", alpha, low=0.0)
        check_number("beta", beta, low=0.0)
        check_number("temperature", temperature, low=0.0, open_low=True)
        if alpha == 0 and beta == 0:
            raise SettingError("alpha and beta are both 0, so there is nothing to train on.")
        check_whole("warmup_epochs", warmup_epochs, low=0)
        self.alpha, self.beta, self.temperature, self.warmup_epochs = alpha, beta, temperature, warmup_epochs
        self.register_buffer("warmup", torch.ones(()))

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        assert student.logits is not None
        if student.logits.shape[-1] < 2:
            raise SignalError(f"{self.expression()} sets the label's class against the others: it needs at least two.")

    def start_epoch(self, epoch: int) -> None:
        self.warmup.fill_(min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        counts = counted(student, batch)
        ours, theirs, labels = (cleared(part, counts) for part in (student.logits, teacher.logits, batch.labels))
        target, non_target = _decoupled(ours, theirs, labels, self.temperature)
        terms = {}
        for name, weight, values in (("target", self.alpha, target), ("non_target", self.beta, non_target)):
            if weight > 0:
                mean = losses.mean(values, weight=batch.weight, mask=counts)
                terms[name] = self.warmup * (weight * self.temperature**2 * mean)
        return terms

    def monitors(self) -> dict[str, Tensor]:
        return {"warmup": self.warmup.detach().clone()}


@losses.in_float32
def _decoupled(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(b_t ‖ b_s) and KL(p̂_t ‖ p̂_s), each of the shape of the labels."""
    label = torch.arange(student.shape[-1], device=labels.device) == labels[..., None]
    ours, theirs = student / temperature, teacher / temperature
    target = _divergence(_label_or_not(ours, label), _label_or_not(theirs, label))
    return target, _divergence(_others(ours, label), _others(theirs, label))


def _label_or_not(logits: Tensor, label: Tensor) -> Tensor:
    """(…, 2): log-probabilities of the label's class and of all others together."""
    log_p = torch.log_softmax(logits, dim=-1)
    of_label, of_others = log_p.where(label, 0.0).sum(dim=-1), log_p.where(~label, -torch.inf).logsumexp(dim=-1)
    return torch.stack([of_label, of_others], dim=-1)


def _others(logits: Tensor, label: Tensor) -> Tensor:
    """(…, C): log-probabilities among the classes that are not the label's; 0 for the label's, which so adds nothing."""
    return torch.log_softmax(logits.where(~label, -torch.inf), dim=-1).where(~label, 0.0)


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)

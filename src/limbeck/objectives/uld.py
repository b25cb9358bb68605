"""Universal logit distillation: between models whose tokenizers differ."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class ULD(Objective, name="uld"):
    """Distance of sorted probabilities, for a teacher with another vocabulary: how the mass is spread, not on what.

    Logits (B, V) and (B, W), or (B, L, V) and (B, K, W) of token models: the k-th position that the student's mask (B, L)
    counts is compared with the k-th that the teacher's (B, K) counts, whatever the tokens there stand for. The sum runs over
    the positions that have a partner, the divisor is the number of positions that the student's mask counts. Samples are
    weighted by ``batch.weight``.

    Args:
        temperature: T > 0 of both softmaxes. The loss is not multiplied by a power of it.

    Scale:
        Between 0 and 2; zero when the sorted probabilities agree, be they those of the same tokens or not, so it teaches
        nothing alone: it stands beside the cross-entropy. The preset's weight of 1.5 is a common choice that was not
        checked against the paper.

    Differences:
        Positions are aligned by their number, as published: where the two tokenizers split the text differently the pairs
        are of different places in it. The authors average over the pairs of a sample and then over samples; here the
        divisor is the number of the student's positions, so that a batch in parts gives the same loss, and positions
        without a partner add nothing. Their options to leave out the last token and to align by soft dynamic time
        warping are not here.
    """

    needs = frozenset({"logits"})
    per_position = True
    any_vocabulary = True
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \frac{1}{N} \sum_i \sum_k \left| p^T_{i(k)} - p^S_{i(k)} \right|, \quad "
        r"p = \mathrm{softmax}(z / T), \quad p_{(1)} \geq p_{(2)} \geq \dots"
    )
    paper = Paper(
        "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", 2024, arxiv="2402.12030"
    )
    presets = {"uld": "ce + 1.5*uld()"}

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        self.temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        theirs, paired = teacher.logits, student.mask
        if student.logits.ndim == 3:
            theirs, paired = _aligned(student, teacher)
        values = losses.sorted_distance(student.logits, theirs, temperature=self.temperature, mask=paired)
        return {"uld": losses.mean(values, weight=batch.weight, mask=student.mask)}


def _aligned(student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
    """(B, L, W) the teacher's logits at each student's position's partner, and (B, L) whether it has one."""
    assert teacher.logits is not None
    ours, theirs = _counted(student), _counted(teacher)
    # The teacher's positions that count come first, in their order.
    order = (~theirs).to(torch.uint8).argsort(dim=1, stable=True)
    number = ours.cumsum(dim=1) - 1
    paired = ours & (number < theirs.sum(dim=1, keepdim=True))
    place = order.gather(1, number.clamp(min=0, max=order.shape[1] - 1))
    return teacher.logits[torch.arange(len(place), device=place.device)[:, None], place], paired


def _counted(signals: Signals) -> Tensor:
    if signals.mask is not None:
        return signals.mask
    assert signals.logits is not None
    return torch.ones(signals.logits.shape[:2], dtype=torch.bool, device=signals.logits.device)

"""Online knowledge distillation: adapters in the frozen teacher learn together with the student."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import check_choice, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.objectives.companions import Adapted
from limbeck.signals import IGNORED, Batch, Signals, counted

_DIRECTIONS = ("forward", "reverse")


class OKD(Objective, name="okd"):
    """The student follows its teacher with adapters (LoRA), which learn the labels and to be followed, on the same text.

    A reconstruction: of the paper the abstract alone was read, and no code of its authors is known. What the abstract says
    is that small modules in the teacher learn at the same time as the student, that nothing else of the teacher changes, and
    that no text is generated; losses, directions, weights and rank are chosen here.

    Logits of student, teacher and adapted teacher are (B, L, V) of token models with the student's mask (B, L), or (B, C) of
    classifiers of text; means run over the positions that count. What one network says is a target for the other and gets no
    gradient there. Samples are weighted by ``batch.weight`` when there is one. Terms: ``okd``, the student's divergence to the
    adapted teacher, to which the labels are added as in ``ce + okd()``; ``adapted.ce`` and ``adapted.kl``, what the adapters
    learn. At the first step the adapted teacher is the teacher, to the last bit.

    Adapters are made in a copy of the teacher that holds the very same weights, so that the teacher itself stays as it is, bit
    for bit, and its memory is not doubled. They train with the student's optimizer at its learning rate, are clipped by a norm
    of their own, without dropout, and are thrown away at the end. Each step has the teacher's pass and the adapted teacher's,
    forward and backward.

    The metrics tell ``drift``, the mean KL(adapted teacher ‖ teacher), and ``adapted_nll``, the adapted teacher's cross-entropy
    with the labels, both of the training batches since the line before.

    Args:
        rank: of the adapters, which are at all projections of all attentions.
        weight: a > 0, of the student's divergence.
        teacher_weight: b > 0, of the adapters' divergence.
        direction: of the student's divergence: "reverse" is KL(student ‖ adapted teacher), "forward" the other way round.
        teacher_direction: of the adapters', in the same words.
        variant: what the adapters learn: "ce" the labels, "kl" to be near the student, "both". With "kl" alone nothing holds
            the teacher but the student, to whose level it may sink; ``drift`` shows it. Without adapters this is ``kl()``.

    Scale:
        At the start ``okd`` and ``adapted.kl`` are the divergence of student and teacher, as in ``kl``, and ``adapted.ce`` is
        the teacher's cross-entropy. A weight on the whole, as in ``0.5*okd()``, is on the adapters' loss too.

    Differences:
        All is reconstructed, see above; nothing here is the paper's result. Of the variants that a study of it would want,
        steps that alternate between student and adapters are not here.
    """

    needs = frozenset({"labels", "logits", "peers"})
    per_position = True
    formula = (
        r"\mathcal{L} = a\, \frac{1}{N} \sum_i \mathrm{KL}\!\left( p^S_i \,\|\, \mathrm{sg}[p^{T'}_i] \right) "
        r"- \frac{1}{N} \sum_i \log p^{T'}_{i y_i} + b\, \frac{1}{N} \sum_i \mathrm{KL}\!\left( \mathrm{sg}[p^S_i] \,\|\, "
        r"p^{T'}_i \right), \quad p^{T'} = \mathrm{softmax}(z^{T'}), \quad W' = W + B A"
    )
    paper = Paper(
        "Exploring and Enhancing the Transfer of Distribution in Knowledge Distillation for Autoregressive Language Models",
        2024,
        arxiv="2409.12512",
    )
    presets = {"okd": "ce + okd()"}
    watched: Tensor

    def __init__(
        self,
        *,
        rank: int = 8,
        weight: float = 1.0,
        teacher_weight: float = 1.0,
        direction: str = "reverse",
        teacher_direction: str = "reverse",
        variant: str = "both",
    ) -> None:
        super().__init__()
        check_whole("rank", rank, low=1)
        check_number("weight", weight, low=0.0, open_low=True)
        check_number("teacher_weight", teacher_weight, low=0.0, open_low=True)
        check_choice("direction", direction, _DIRECTIONS)
        check_choice("teacher_direction", teacher_direction, _DIRECTIONS)
        check_choice("variant", variant, ("both", "ce", "kl"))
        self.rank, self.weight, self.teacher_weight = rank, weight, teacher_weight
        self.direction, self.teacher_direction, self.variant = direction, teacher_direction, variant
        # Sums of drift and cross-entropy over the positions that count, and their number.
        self.register_buffer("watched", torch.zeros(3))

    def companions(self) -> Adapted:
        return Adapted(self.rank)

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        self.to(student.logits.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert student.peers is not None
        ours, adapted = student.logits, student.peers[:, 0]
        counts = counted(student, batch)
        labels = batch.labels if counts is None else batch.labels.where(counts, IGNORED)
        follow = losses.REVERSE_KL if self.direction == "reverse" else losses.FORWARD_KL
        # The divergences name the network that learns first, so that the adapters' have the other name.
        lead = losses.FORWARD_KL if self.teacher_direction == "reverse" else losses.REVERSE_KL

        def mean(values: Tensor) -> Tensor:
            return losses.mean(values, weight=batch.weight, mask=counts)

        nll = losses.cross_entropy(adapted, labels)
        terms = {"okd": self.weight * mean(losses.divergence(ours, adapted, follow, mask=counts))}
        if self.variant != "kl":
            terms["adapted.ce"] = mean(nll)
        if self.variant != "ce":
            terms["adapted.kl"] = self.teacher_weight * mean(losses.divergence(adapted, ours, lead, mask=counts))
        self._watch(adapted, teacher, nll, counts)
        return terms

    @torch.no_grad()
    def _watch(self, adapted: Tensor, teacher: Signals, nll: Tensor, counts: Tensor | None) -> None:
        if not self.training:
            return
        assert teacher.logits is not None
        drift = losses.divergence(adapted, teacher.logits, losses.REVERSE_KL, mask=counts)
        positions = torch.ones_like(drift) if counts is None else counts
        self.watched += torch.stack([drift.sum(), nll.sum(), positions.sum().to(drift.dtype)])

    def monitors(self) -> dict[str, Tensor]:
        drift, nll, positions = self.watched.clone()
        self.watched.zero_()
        return {"drift": drift / positions.clamp(min=1), "adapted_nll": nll / positions.clamp(min=1)}

"""Invariant consistency distillation: the heart of limbeck."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows, rank
from limbeck.errors import SettingError, check_choice, check_flag, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class ICD(Objective, name="icd", aliases=("dcd",)):
    """Invariant consistency: in-batch contrast between student and teacher embeddings plus a row/column consistency penalty.

    Student embeddings (N, d_S) and teacher embeddings (N, d_T) pass one trained linear layer each to ``dim`` numbers and are
    scaled to unit length; L is their (N, N) matrix of cosines times a learned scale τ (an *inverse* temperature). The terms
    are ``contrast`` (InfoNCE: each student picks its own teacher among the N of the batch) and ``invariance`` (α times the
    divergence between the row softmax and the softmax of the transposed matrix; zero if and only if L is symmetric).
    Everything from the cosines on is computed in float32. The heads are discarded after training.

    Args:
        alpha: α ≥ 0, weight of the invariance term.
        dim: width of the two linear heads.
        max_scale: upper bound of τ. At the bound the smallest possible contrast is about ln(1 + (N-1)·exp(-max_scale)) for
            orthogonal negatives: 0.003 for N = 64 at 10, 0.17 for N = 4096, so raise it for large batches.
        learn_scale: whether τ is learned, from e on; otherwise it stays at ``max_scale``.
        detach_target: hold the teacher-anchored distribution q fixed in the invariance term.
        symmetric: average the contrast over both directions (student picks teacher, teacher picks student).
        exclude_same_class: pairs of different samples of one class are neither negatives nor part of the invariance term.
            Nor are, always, two views of one sample in a batch that holds several of each.
        variant: "mended", or "paper" for the authors' code to the last detail.

    Scale:
        contrast is near ln N at initialisation (4.2 for N = 64), because τ starts at e ≈ 2.718 and the cosines near 0;
        invariance is near 0 at first. Batch size is part of the method: N - 1 is the number of negatives.

    Differences:
        The authors' code (variant="paper") differs from "mended" in four ways. (1) It has a learned bias b added to L; every
        term is a softmax, so b cancels and its gradient is exactly zero: we leave it out. (2) It clamps exp(t) at 10 inside
        the loss, so above the bound t gets no gradient at all and only weight decay moves it: we clamp the parameter
        instead, and the gradient can always bring it back. (3) It applies weight decay to t and b: we do not. (4) Its
        negatives are those of one process: we gather them across processes, with gradient. The authors' normalisation is
        applied twice, which changes nothing. No teacher-side gradient is stopped in either variant: both heads learn.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    minimum_batch = 2
    formula = (
        r"L_{ij} = \tau \, \langle z^S_i, z^T_j \rangle, \quad "
        r"p_i = \mathrm{softmax}_j(L_{ij}), \quad q_i = \mathrm{softmax}_j(L_{ji}), \quad "
        r"\mathcal{L} = -\frac{1}{N} \sum_i \log p_{ii} + \frac{\alpha}{N} \sum_i \mathrm{KL}(q_i \,\|\, p_i)"
    )
    paper = Paper("Invariant Consistency for Knowledge Distillation", 2024, arxiv="2407.11802")
    presets = {
        "icd": "ce + icd()",
        "icd+kd": "ce + icd() + kd(temperature=4)",
        "dcd": "ce + icd()",
        "dcd+kd": "ce + icd() + kd(temperature=4)",
        "icd_paper": "ce + icd(variant='paper')",
        "icd_paper+kd": "ce + icd(variant='paper') + kd(temperature=4)",
    }

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        dim: int = 128,
        max_scale: float = 10.0,
        learn_scale: bool = True,
        detach_target: bool = False,
        symmetric: bool = False,
        exclude_same_class: bool = False,
        variant: str = "mended",
    ) -> None:
        super().__init__()
        check_number("alpha", alpha, low=0.0)
        check_number("max_scale", max_scale, low=1.0)
        check_choice("variant", variant, ("mended", "paper"))
        check_flag("learn_scale", learn_scale)
        check_flag("detach_target", detach_target)
        check_flag("symmetric", symmetric)
        check_flag("exclude_same_class", exclude_same_class)
        check_whole("dim", dim, low=1)
        if variant == "paper" and not learn_scale:
            raise SettingError("icd: variant='paper' learns its scale; learn_scale=False is for variant='mended'.")
        self.alpha, self.dim, self.variant = alpha, dim, variant
        self.max_scale, self.learn_scale = max_scale, learn_scale
        self.detach_target, self.symmetric, self.exclude_same_class = detach_target, symmetric, exclude_same_class
        if exclude_same_class:
            self.needs = self.needs | {"labels"}
        self.student_head: nn.Linear | None = None
        self.teacher_head: nn.Linear | None = None
        # One number in one dimension: FSDP2 shards no scalars.
        if learn_scale:
            self.log_scale: Tensor = nn.Parameter(torch.tensor([min(1.0, math.log(max_scale))]))
        else:
            self.register_buffer("log_scale", torch.tensor([math.log(max_scale)]))
        if self._paper:
            self.bias = nn.Parameter(torch.zeros(1))
            self.dead_parameters = frozenset({"bias"})
            self.local_negatives = True

    @property
    def _paper(self) -> bool:
        return self.variant == "paper"

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        device = student.embedding.device
        self.student_head = nn.Linear(student.embedding.shape[-1], self.dim, device=device)
        self.teacher_head = nn.Linear(teacher.embedding.shape[-1], self.dim, device=device)
        self.to(device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        similarity = self._similarity(student, teacher, batch)
        contrast = losses.info_nce(similarity)
        if self.symmetric:
            contrast = (contrast + losses.info_nce(similarity.T)) / 2
        terms = {"contrast": contrast}
        if self.alpha > 0:
            terms["invariance"] = self.alpha * losses.invariance(similarity, detach_target=self.detach_target)
        return terms

    def _similarity(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        if self.student_head is None or self.teacher_head is None:
            raise SettingError("icd has no heads yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding is not None
        assert teacher.embedding is not None
        if len(student.embedding) < 2:
            raise SettingError("icd contrasts the samples of a batch with each other: it needs at least two.")
        student_rows = self.student_head(student.embedding)
        teacher_rows = self.teacher_head(teacher.embedding.to(student_rows.dtype))
        labels = batch.labels
        if not self._paper:
            student_rows, teacher_rows = gather_rows(student_rows), gather_rows(teacher_rows)
            labels = gather_rows(labels) if self.exclude_same_class else labels
        similarity = self._scale() * losses.cosine_similarity_matrix(student_rows, teacher_rows)
        if self._paper:
            similarity = similarity + self.bias
        same = labels[:, None] == labels if self.exclude_same_class else None
        if batch.copies > 1:
            sample = self._samples(len(student.embedding), batch.copies, labels.device)
            views = sample[:, None] == sample
            same = views if same is None else same | views
        if same is not None:
            others = ~torch.eye(len(same), dtype=torch.bool, device=same.device)
            similarity = similarity.masked_fill(same & others, -torch.inf)
        return similarity

    def _samples(self, size: int, copies: int, device: torch.device) -> Tensor:
        """A number for each row that its other views in the batch have too, and rows of other samples have not."""
        sample = torch.arange(size, device=device) % (size // copies)
        return sample if self._paper else gather_rows(sample + rank() * size)

    def _scale(self) -> Tensor:
        if self._paper:
            return self.log_scale.exp().clamp(0.0, self.max_scale)
        # Here too, for loops that call no after_step.
        self.after_step()
        return self.log_scale.exp()

    @torch.no_grad()
    def after_step(self) -> None:
        if not self._paper:
            self.log_scale.clamp_(max=math.log(self.max_scale))

    def monitors(self) -> dict[str, Tensor]:
        return {"scale": self.log_scale.detach().exp().clamp(max=self.max_scale).squeeze()}

    def no_weight_decay(self) -> set[str]:
        return set() if self._paper or not isinstance(self.log_scale, nn.Parameter) else {"log_scale"}

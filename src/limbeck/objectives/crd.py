"""Contrastive representation distillation with memory banks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import SettingError, SignalError, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals

_EPSILON = 1e-7


class CRD(Objective, name="crd"):
    """Noise-contrastive estimation between each embedding and remembered embeddings of the other network.

    Student embeddings (B, d_S) and teacher embeddings (B, d_T) pass one trained linear layer each to ``dim`` numbers and are
    scaled to unit length. Two banks of n rows, one for each training sample, remember them. Each student embedding tells
    the row of its own sample in the teacher's bank from K rows of other classes, and each teacher embedding likewise in the
    student's bank. Everything from the heads on is computed in float32. The banks lie on the training device and in the
    checkpoint; among several processes every one enters the embeddings of all. The heads are discarded after training.

    Args:
        negatives: K. A class with fewer than K samples of other classes around it uses them all, each counted K over their
            number times: the mean of drawing K of them with replacement.
        temperature: τ > 0 of the similarities.
        momentum: m in [0, 1), the part of the old row that stays when a row is renewed: row ← unit(m·row + (1-m)·z).
        dim: width of the two linear heads.

    Scale:
        About 11.5 each side at initialisation for K = 16384, n = 50000 and 64 samples (measured on random embeddings): the
        rows of the bank are no better than chance at first.

    Differences:
        The negatives of each sample are K rows drawn without replacement from those of other classes, as in the authors'
        code, but samples of a batch share one random order of the rows: each takes the first K that are not of its class.
        What one sample sees is distributed as there; two samples of a batch see overlapping rows. So two matrix products
        of the batch with some rows replace gathering K rows for each sample (in public code 64 × 16,385 × 128 numbers a
        step and bank), and nothing is drawn on the host. The constant Z of each side, mean(exp(similarity/τ))·n, is
        frozen before the first step from the probe batch against its whole bank; the authors take the first training
        batch against its draw. The paper's equation applies each head to the other network; the code, and ours, does not
        (its issue 24). A later public repository calls a queue-based InfoNCE ``crd``; that is another method.
    """

    needs = frozenset({"embedding", "index", "labels"})
    formula = (
        r"o_{ik} = \frac{\exp(\langle m_k, z_i \rangle / \tau)}{Z}, \quad "
        r"\mathcal{L} = -\frac{1}{B} \sum_i \left[ \log \frac{o_{i0}}{o_{i0} + K/n} "
        r"+ \sum_{k=1}^{K} \log \frac{K/n}{o_{ik} + K/n} \right] "
        r"\;\text{for student against teacher's bank, and the reverse}"
    )
    paper = Paper("Contrastive Representation Distillation", 2020, arxiv="1910.10699")
    presets = {"crd": "ce + 0.8*crd()", "crd+kd": "ce + 0.8*crd() + kd(temperature=4)"}
    student_bank: Tensor
    teacher_bank: Tensor
    log_normaliser: Tensor
    row_of_index: Tensor
    class_of_row: Tensor

    def __init__(
        self, *, negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5, dim: int = 128
    ) -> None:
        super().__init__()
        for name, value in (("negatives", negatives), ("dim", dim)):
            check_whole(name, value, low=1)
        check_number("temperature", temperature, low=0.0, open_low=True)
        check_number("momentum", momentum, low=0.0, high=0.999999)
        self.negatives, self.temperature, self.momentum, self.dim = negatives, temperature, momentum, dim
        self.student_head: nn.Linear | None = None
        self.teacher_head: nn.Linear | None = None
        self._labels: Tensor | None = None
        self._largest_class = 0

    def set_training_labels(self, labels: Tensor) -> None:
        self._labels = labels

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        if self._labels is None:
            raise SettingError("crd remembers every training sample: call set_training_labels(labels) before build.")
        device = student.embedding.device
        labels = self._labels.to(device)
        present = (labels >= 0).nonzero().flatten()
        counts = torch.bincount(labels[present])
        if int((counts > 0).sum()) < 2:
            raise SignalError("crd contrasts samples of different classes: the training set has only one class.")
        self._largest_class = int(counts.max())
        rows = torch.full_like(labels, -1)
        rows[present] = torch.arange(len(present), device=device)
        # What the data says is not state of the training: it is not in the checkpoint.
        self.register_buffer("row_of_index", rows, persistent=False)
        self.register_buffer("class_of_row", labels[present], persistent=False)
        self.student_head = nn.Linear(student.embedding.shape[-1], self.dim, device=device)
        self.teacher_head = nn.Linear(teacher.embedding.shape[-1], self.dim, device=device)
        bound = math.sqrt(3 / self.dim)
        for name in ("student_bank", "teacher_bank"):
            start = torch.empty(len(present), self.dim, device=device).uniform_(-bound, bound)
            self.register_buffer(name, start)
        self.register_buffer("log_normaliser", self._log_normaliser(student, teacher))

    @torch.no_grad()
    def _log_normaliser(self, student: Signals, teacher: Signals) -> Tensor:
        """(2,) logarithms of mean(exp(similarity/τ))·n over the probe batch and a whole bank."""
        z_student, z_teacher = self._embed(student.map(Tensor.float), teacher.map(Tensor.float))
        similarities = (gather_rows(z_student) @ self.teacher_bank.T, gather_rows(z_teacher) @ self.student_bank.T)
        sums = [(value / self.temperature).logsumexp(dim=(0, 1)) - math.log(len(value)) for value in similarities]
        return torch.stack(sums)

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        if self._labels is not None and batch.index is not None:
            known = (batch.index >= 0) & (batch.index < len(self._labels))
            if not bool(known.all()) or bool((self._labels.to(batch.index.device)[batch.index] < 0).any()):
                raise SignalError(
                    f"crd has a row for each of {int((self._labels >= 0).sum())} training samples, and the batch holds "
                    f"samples that are not among them (index up to {int(batch.index.max())})."
                )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert batch.index is not None
        z_student, z_teacher = self._embed(student, teacher)
        rows = self.row_of_index[batch.index]
        order = torch.randperm(len(self.class_of_row), device=rows.device)
        # So many rows hold K of another class for every sample, whatever its class.
        drawn = order[: self.negatives + self._largest_class]
        different = self.class_of_row[drawn] != batch.labels[:, None]
        chosen = different & (different.cumsum(dim=1) <= self.negatives)
        terms = {
            "student": self._contrast(z_student, self.teacher_bank, rows, drawn, chosen, 0, batch.weight),
            "teacher": self._contrast(z_teacher, self.student_bank, rows, drawn, chosen, 1, batch.weight),
        }
        if self.training:
            first_view = len(rows) // batch.copies
            self._remember(rows[:first_view], z_student[:first_view], z_teacher[:first_view])
        return terms

    def _embed(self, student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
        if self.student_head is None or self.teacher_head is None:
            raise SettingError("crd has no heads yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding is not None
        assert teacher.embedding is not None
        z_student = self.student_head(student.embedding)
        z_teacher = self.teacher_head(teacher.embedding.to(z_student.dtype))
        return losses.unit(z_student), losses.unit(z_teacher)

    def _contrast(
        self,
        z: Tensor,
        bank: Tensor,
        rows: Tensor,
        drawn: Tensor,
        chosen: Tensor,
        side: int,
        weight: Tensor | None,
    ) -> Tensor:
        with torch.autocast(device_type=z.device.type, enabled=False):
            # Copies: the banks are renewed before the gradient is taken.
            positive = (z * bank[rows]).sum(dim=1) / self.temperature - self.log_normaliser[side]
            negative = z @ bank[drawn].T / self.temperature - self.log_normaliser[side]
            noise = self.negatives / len(self.class_of_row)
            log_noise = math.log(noise + _EPSILON)
            # With softplus(x) = log(1 + exp(x)) on logarithms: exp(1/τ) leaves float32 as soon as τ is 0.01.
            found = F.softplus(log_noise - positive)
            told_apart = F.softplus(negative - log_noise) + (log_noise - math.log(noise))
            told_apart = told_apart.where(chosen, 0.0).sum(dim=1) * self.negatives / chosen.sum(dim=1)
            return losses.mean(found + told_apart, weight=weight)

    @torch.no_grad()
    def _remember(self, rows: Tensor, z_student: Tensor, z_teacher: Tensor) -> None:
        rows = gather_rows(rows)
        for bank, z in ((self.student_bank, z_student), (self.teacher_bank, z_teacher)):
            renewed = self.momentum * bank[rows] + (1 - self.momentum) * gather_rows(z.detach())
            bank.index_copy_(0, rows, losses.unit(renewed).to(bank.dtype))

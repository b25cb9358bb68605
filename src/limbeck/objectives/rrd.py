"""Relational representation distillation against a queue of teacher embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import SettingError, check_choice, check_number, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals

_TEMPERATURES = {"2024": (0.04, 0.10), "2025": (0.10, 0.02)}


class RRD(Objective, name="rrd"):
    """Cross-entropy between how teacher and student embeddings relate to remembered teacher embeddings.

    Student embeddings (B, d_S) pass a trained linear layer, teacher embeddings (B, d_T) a fixed random one, both to ``dim``
    numbers of unit length. Q is a queue of the last K such teacher embeddings. Each embedding's similarities to the queue
    become a distribution by a softmax at its network's temperature; the student's is to be the teacher's. From the
    similarities on everything is float32. The queue is in the checkpoint; several processes enter the rows of all.

    Args:
        variant: "2025", or "2024" for the setting of the first versions. It chooses the temperatures, unless they are
            given, and the time of entering: see Differences.
        student_temperature: τ_s > 0.
        teacher_temperature: τ_t > 0.
        queue: K, the rows that are remembered.
        dim: width of the two linear layers.

    Scale:
        The entropy of the teacher's distribution plus the divergence; near ln K (9.7 for K = 16384) where both are flat.

    Differences:
        The authors published two settings that contradict each other. "2024" (arXiv v1 to v3, code of 2024-07 to 2024-09):
        τ_s = 0.04, τ_t = 0.10, the student the sharper of the two, and the batch enters the queue after the loss. "2025"
        (code of 2025-02, about v4 and v5): τ_s = 0.10, τ_t = 0.02, the teacher the sharper, and the batch enters before, so
        that each sample's own positive is among the rows and a sharp teacher makes it InfoNCE; the abstract of v5 still
        speaks of sharper students, and a docstring in that code of (0.02, 0.1). Both minimise cross-entropy, which differs
        from the divergence by the teacher's entropy, a constant. In their code the teacher's layer is a parameter that no
        gradient reaches; here it is a buffer. Their queue starts normalised along the wrong axis; ours starts with unit
        rows. Their variant with momentum banks feeds exponentials into a second softmax, and is not built. A batch need not
        divide K; of several views of a sample the first enters. With accumulation the parts of a batch enter one after
        another. For RRD + KD the README gives the KD term weight 1, a plotting script 0.9; the presets have 1.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    formula = (
        r"P_{ik} = \mathrm{softmax}_k(\langle z_i, q_k \rangle / \tau), \quad "
        r"\mathcal{L} = -\frac{1}{B} \sum_i \sum_k P^T_{ik} \log P^S_{ik}"
    )
    paper = Paper("Relational Representation Distillation", 2024, arxiv="2407.12073")
    presets = {
        "rrd": "ce + rrd()",
        "rrd+kd": "ce + rrd() + kd(temperature=4)",
        "rrd_2024": "ce + rrd(variant='2024')",
        "rrd_2024+kd": "ce + rrd(variant='2024') + kd(temperature=4)",
    }
    memory: Tensor
    place: Tensor
    teacher_weight: Tensor
    teacher_bias: Tensor

    def __init__(
        self,
        *,
        variant: str = "2025",
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
        queue: int = 16384,
        dim: int = 128,
    ) -> None:
        super().__init__()
        check_choice("variant", variant, tuple(_TEMPERATURES))
        for name, value in (("student_temperature", student_temperature), ("teacher_temperature", teacher_temperature)):
            if value is not None:
                check_number(name, value, low=0.0, open_low=True)
        for name, count in (("queue", queue), ("dim", dim)):
            check_whole(name, count, low=1)
        self.variant, self.queue, self.dim = variant, queue, dim
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        usual = _TEMPERATURES[variant]
        self._temperatures = (student_temperature or usual[0], teacher_temperature or usual[1])
        # Only a batch that is already in the queue when it is compared sees itself.
        self.batch_coupled = variant == "2025"
        self.student_head: nn.Linear | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        device = student.embedding.device
        self.student_head = nn.Linear(student.embedding.shape[-1], self.dim, device=device)
        teacher_head = nn.Linear(teacher.embedding.shape[-1], self.dim, device=device)
        self.register_buffer("teacher_weight", teacher_head.weight.detach().clone())
        self.register_buffer("teacher_bias", teacher_head.bias.detach().clone())
        self.register_buffer("memory", losses.unit(torch.randn(self.queue, self.dim, device=device)))
        self.register_buffer("place", torch.zeros(1, dtype=torch.int64, device=device))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.student_head is None:
            raise SettingError("rrd has no head yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding is not None
        assert teacher.embedding is not None
        z_student = losses.unit(self.student_head(student.embedding))
        with torch.no_grad():
            embedding = teacher.embedding.to(self.teacher_weight.dtype)
            z_teacher = losses.unit(F.linear(embedding, self.teacher_weight, self.teacher_bias))
        first_view = z_teacher[: len(z_teacher) // batch.copies]
        if self.variant == "2025":
            self._enter(first_view)
        # A copy, because the queue may change before the gradient is taken.
        rows = self.memory.clone()
        if self.variant == "2024":
            self._enter(first_view)
        return {"rrd": self._cross_entropy(z_student, z_teacher, rows, batch)}

    def _cross_entropy(self, z_student: Tensor, z_teacher: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        tau_student, tau_teacher = self._temperatures
        with torch.autocast(device_type=rows.device.type, enabled=False):
            rows = rows.to(z_student.dtype)
            target = torch.softmax(z_teacher @ rows.T / tau_teacher, dim=1)
            values = -(target * torch.log_softmax(z_student @ rows.T / tau_student, dim=1)).sum(dim=1)
        return losses.mean(values, weight=batch.weight)

    @torch.no_grad()
    def _enter(self, z_teacher: Tensor) -> None:
        if not self.training:
            return
        # Of a batch that is larger than the queue, the last rows stay.
        rows = gather_rows(z_teacher.detach())[-self.queue :]
        places = (self.place + torch.arange(len(rows), device=rows.device)) % self.queue
        self.memory.index_copy_(0, places, rows.to(self.memory.dtype))
        self.place.copy_((self.place + len(rows)) % self.queue)

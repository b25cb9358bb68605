"""Correlation congruence between neighbours in the batch."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import SettingError, check_whole
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class CC(Objective, name="cc"):
    """How much the errors of samples that stand next to each other in the batch agree.

    Student embeddings (B, d_S) and teacher embeddings (B, d_T) pass one trained linear layer each to ``dim`` numbers. δ_i is
    the absolute difference of the two for sample i; the loss is the mean over the B - 1 pairs of neighbours of ⟨δ_i, δ_i+1⟩.
    The heads and all that follows are float32: the gradient of the heads may be too large for float16. Several processes
    form one batch, in the order of their ranks. The heads are discarded after training.

    The order of the samples changes the loss, for another order has other neighbours: ``order_free`` is False. A batch
    that is shuffled makes the neighbours random pairs.

    Args:
        dim: width of the two linear heads.

    Scale:
        About 57 at initialisation for embeddings whose numbers have a mean square of 1, at ``dim`` 128; it grows with
        ``dim`` and with that square. Never negative. It is zero where of each two neighbours one agrees, and not for a
        student that equals the teacher: each has a head of its own.

    Differences:
        The paper compares all pairs of a batch, by a Taylor expansion of a Gaussian kernel, and takes care which samples
        come together in it; this is the simplification that its authors gave to the benchmark of the CRD paper, with the
        weight of that benchmark, 0.02. Nothing keeps the heads from shrinking: both at zero is an optimum, in which nothing
        is taught. Where public codes have several processes, each compares its own samples and the heads are not averaged.
    """

    needs = frozenset({"embedding"})
    batch_coupled = True
    order_free = False
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{B - 1} \sum_{i < B} \langle \delta_i, \delta_{i+1} \rangle, \quad "
        r"\delta_i = \left| W_S h^S_i + b_S - W_T h^T_i - b_T \right|"
    )
    paper = Paper("Correlation Congruence for Knowledge Distillation", 2019, arxiv="1904.01802")
    presets = {"cc": "ce + 0.02*cc()", "cc+kd": "ce + 0.02*cc() + kd(temperature=4)"}

    def __init__(self, *, dim: int = 128) -> None:
        super().__init__()
        check_whole("dim", dim, low=1)
        self.dim = dim
        self.student_head: nn.Linear | None = None
        self.teacher_head: nn.Linear | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        device = student.embedding.device
        self.student_head = nn.Linear(student.embedding.shape[-1], self.dim, device=device)
        self.teacher_head = nn.Linear(teacher.embedding.shape[-1], self.dim, device=device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.student_head is None or self.teacher_head is None:
            raise SettingError("cc has no heads yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding is not None
        assert teacher.embedding is not None
        projected = losses.project(student.embedding, self.student_head) - losses.project(
            teacher.embedding, self.teacher_head
        )
        errors = gather_rows(projected).abs()
        return {"cc": (errors[:-1] * errors[1:]).sum(dim=1).mean()}

"""Softmax regression representation learning: the student's embedding as the teacher's own classifier reads it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class SRRL(Objective, name="srrl"):
    """The student's embedding, brought to the teacher's space, equals the teacher's and gives the teacher's logits.

    The student's embedding (B, d_S) passes a linear layer, a batch norm and a ReLU to (B, d_T). The terms are ``feature``
    (mean squared distance from the teacher's embedding) and ``classifier`` (mean squared distance of the logits that the
    teacher's fixed linear classifier makes of it from the teacher's). The head and the copy of the classifier are discarded
    after training. Samples are weighted by ``batch.weight``.

    Scale:
        Both terms are means over samples and over numbers. At initialisation the head gives the positive half of N(0, 1).

    Differences:
        A linear layer on the pooled vector is the 1×1 convolution of the public codes on a map of one position; the
        convolution has no bias here, since the batch norm takes it away again. The batch norm takes its statistics from the
        samples of one process, so two processes differ a little from one with all samples.
    """

    needs = frozenset({"embedding", "logits", "classifier"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"u_i = \mathrm{ReLU}(\mathrm{BN}(W h^S_i)), \quad "
        r"\mathcal{L} = \frac{1}{B} \sum_i \left( \frac{1}{d_T} \| u_i - h^T_i \|_2^2 "
        r"+ \frac{1}{C} \| W_T u_i + b_T - z^T_i \|_2^2 \right)"
    )
    paper = Paper("Knowledge Distillation via Softmax Regression Representation Learning", 2021, venue="ICLR")
    presets = {"srrl": "ce + kd(temperature=4) + srrl()"}

    classifier_weight: Tensor
    classifier_bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head: nn.Module | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding is not None
        assert teacher.embedding is not None
        weight, size = teacher.constants["classifier.weight"], teacher.embedding.shape[-1]
        if weight.shape[1] != size:
            raise SignalError(
                f"{self.expression()} gives the teacher's embedding to its classifier: the classifier takes {weight.shape[1]} "
                f"numbers and the embedding has {size}."
            )
        self.head = nn.Sequential(
            nn.Linear(student.embedding.shape[-1], size, bias=False), nn.BatchNorm1d(size), nn.ReLU()
        )
        self.register_buffer("classifier_weight", _copy(weight))
        self.register_buffer(
            "classifier_bias", _copy(teacher.constants.get("classifier.bias", weight.new_zeros(len(weight))))
        )
        self.to(student.embedding.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.head is None:
            raise SettingError("srrl has no head yet: call build(student, teacher) before you create the optimizer.")
        assert teacher.embedding is not None
        assert teacher.logits is not None
        rows = self.head(student.embedding)
        read = _read(rows, self.classifier_weight, self.classifier_bias)
        return {
            "feature": losses.mean(losses.squared_error(rows, teacher.embedding), weight=batch.weight),
            "classifier": losses.mean(losses.squared_error(read, teacher.logits), weight=batch.weight),
        }


def _copy(constant: Tensor) -> Tensor:
    return constant.detach().clone().to(torch.promote_types(constant.dtype, torch.float32))


@losses.in_float32
def _read(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.linear(rows, weight, bias)

"""An objective that is meant for embeddings, applied to those of the documents."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives.algebra import WeightedSum
from limbeck.objectives.base import Objective
from limbeck.objectives.icd import ICD
from limbeck.signals import Batch, Signals


class Documents(Objective, name="documents"):
    """Another objective, to which the embeddings of the documents are shown in the place of those of the queries.

    In search ``embedding`` (B, D) holds the queries, and ``documents`` (B, M, D) the M documents of each. ``icd()`` alone
    teaches queries; ``icd() + documents(icd())`` teaches both, each with its own heads. The objective inside sees B·M samples,
    those of a query one after the other. It must compare embeddings and read nothing else: ``icd()``, ``rkd()``, ``sp()``,
    ``cc()``, ``pkt()``, or a sum of such.

    A document that comes twice in a batch is two samples with equal embeddings: a contrast then asks for what cannot be,
    once for each copy, which makes it no smaller than ln 2 for these.

    Args:
        objective: what compares the embeddings; ``icd()`` when left out.

    Scale:
        That of the objective inside, for B·M samples.

    Differences:
        No paper has it: it is how methods made for one embedding a sample are used in search.
    """

    takes_objective = True
    needs = frozenset({"documents"})
    formula = r"\mathcal{L} = \mathcal{L}_{\mathrm{inner}}(D^S, D^T), \quad D = (d_{11}, \dots, d_{1M}, d_{21}, \dots, d_{BM})"
    presets = {"icd_search": "contrastive() + icd() + documents(icd())"}

    def __init__(self, objective: Objective | None = None) -> None:
        super().__init__()
        inner = ICD() if objective is None else objective
        parts = [part for _, _, part in inner.entries()] if isinstance(inner, WeightedSum) else [inner]
        if any(part.needs != {"embedding"} or part.only_initial for part in parts):
            raise SettingError(f"objectives that compare embeddings must stand inside, and nothing else, got {inner}.")
        self.objective = inner
        for trait in ("batch_coupled", "local_negatives", "zero_when_equal", "order_free", "minimum_batch"):
            setattr(self, trait, getattr(inner, trait))
        self.dead_parameters = frozenset(f"objective.{name}" for name in inner.dead_parameters)

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        self.objective.check(*_shown(student, teacher, batch))

    def build(self, student: Signals, teacher: Signals) -> None:
        self.objective.build(_as_embedding(student), _as_embedding(teacher))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        return self.objective(*_shown(student, teacher, batch))

    def set_epochs(self, epochs: int) -> None:
        self.objective.set_epochs(epochs)

    def start_epoch(self, epoch: int) -> None:
        self.objective.start_epoch(epoch)

    def monitors(self) -> dict[str, Tensor]:
        return self.objective.monitors()

    def after_step(self) -> None:
        self.objective.after_step()

    def no_weight_decay(self) -> set[str]:
        return {f"objective.{name}" for name in self.objective.no_weight_decay()}


def _shown(student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals, Batch]:
    assert student.documents is not None
    each = student.documents.shape[1]
    weight = None if batch.weight is None else batch.weight.repeat_interleave(each)
    # Neither the inputs nor the labels of a batch are those of a document.
    labels = batch.labels.repeat_interleave(each)
    shown = replace(batch, inputs=labels, labels=labels, index=None, view=None, weight=weight, copies=1, attacked=None)
    return _as_embedding(student), _as_embedding(teacher), shown


def _as_embedding(signals: Signals) -> Signals:
    assert signals.documents is not None
    return Signals(embedding=signals.documents.flatten(0, 1))

"""Deep mutual learning: networks that teach each other, without a teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError
from limbeck.expression import split_at_commas
from limbeck.objectives._peers import Watch, sound
from limbeck.objectives.base import Objective, Paper
from limbeck.objectives.companions import SAME, Peers
from limbeck.signals import Batch, Signals


class DML(Objective, name="dml"):
    """The student and its peers learn the labels and each other's predictions, all from the start and together.

    Each of the N networks, of which the student is one, has logits (B, C): its loss is the cross-entropy with the labels and
    the mean over the other N - 1 of the divergence from their class probabilities to its own, at temperature 1. What another
    network says is a target and gets no gradient. Samples are weighted by ``batch.weight`` when there is one. Terms: ``ce``
    and ``mutual`` of the student, ``peer1.ce`` and ``peer1.mutual`` of the first peer, and so on. No teacher is used; one may
    be added, as in ``dml + kd()``, for the student alone.

    The peers are made with the student, from its seed, and see its images as it does. They are trained by its optimizer at
    its learning rate, each clipped by its own norm, and thrown away after the training: the student alone is scored and kept.
    The metrics have each peer's accuracy on the training images since the line before. A peer whose logits in a batch are NaN,
    infinite or beyond 1e30 is left out of that step, with a warning, and the others go on.

    Args:
        peers: networks by name with commas between them, as in 'resnet20, resnet14'; ``same`` is one like the student with
            another initialisation. They start at random.

    Scale:
        ce is ln C at the start, for each network; mutual is small there, since untrained networks nearly agree.

    Differences:
        The paper updates the networks in turn, each after it has seen what the others say after their step; here, as in
        its distributed form, all step at once from one pass. The loss of the peers is in the ``loss`` of the metrics. For more
        than two networks the mean over the others is the paper's equation; its variant with the ensemble of the others as
        the one teacher is not here.
    """

    needs = frozenset({"labels", "logits", "peers"})
    needs_teacher = False
    formula = (
        r"\mathcal{L} = \sum_{k=1}^{N} \left( -\frac{1}{B} \sum_i \log p^k_{i y_i} + \frac{1}{N - 1} \sum_{l \neq k} "
        r"\frac{1}{B} \sum_i \mathrm{KL}\!\left( p^l_i \,\|\, p^k_i \right) \right), \quad p = \mathrm{softmax}(z)"
    )
    paper = Paper("Deep Mutual Learning", 2018, arxiv="1706.00384", venue="CVPR")
    presets = {"dml": "dml()"}

    def __init__(self, *, peers: str = SAME) -> None:
        super().__init__()
        self._models = tuple(split_at_commas(peers, "peers"))
        if not self._models:
            raise SettingError(
                "peers: at least one network must be named, as in peers='same' or peers='resnet20, resnet14'."
            )
        self.peers = peers
        self.watch: Watch | None = None

    def companions(self) -> Peers:
        return Peers(self._models)

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        self.watch = Watch(self.name, [f"peer{number}" for number in range(1, len(self._models) + 1)])
        self.watch.to(student.logits.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.watch is None:
            raise SettingError("dml is not built yet: call build(student, teacher) before you create the optimizer.")
        assert student.logits is not None
        assert student.peers is not None
        peers, alive = sound(student.peers)
        self.watch.note(peers.unbind(1), alive, batch)
        networks = [student.logits, *peers.unbind(1)]
        counts = [torch.ones_like(alive[0]), *alive.unbind()]
        terms = {}
        for number, own in enumerate(networks):
            others = [(other, count) for other, count in zip(networks, counts, strict=True) if other is not own]
            prefix = f"peer{number}." if number else ""
            labels = losses.mean(losses.cross_entropy(own, batch.labels), weight=batch.weight)
            terms[f"{prefix}ce"] = labels * counts[number]
            terms[f"{prefix}mutual"] = _mutual(own, others, batch.weight) * counts[number]
        return terms

    def monitors(self) -> dict[str, Tensor]:
        return {} if self.watch is None else self.watch.monitors()


def _mutual(own: Tensor, others: list[tuple[Tensor, Tensor]], weight: Tensor | None) -> Tensor:
    """Mean of KL(other ‖ own) over the other networks (B, C) that count, each with whether it does."""
    values = torch.stack(
        [losses.mean(losses.kl_divergence(own, other.detach()), weight=weight) * count for other, count in others]
    )
    return values.sum() / torch.stack([count for _, count in others]).sum().clamp(min=1)

"""On-the-fly native ensemble: branches of one network that a gate joins to its own teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import gather_rows, rank
from limbeck.errors import SettingError, SignalError, check_number, check_whole
from limbeck.objectives._peers import Watch, sound
from limbeck.objectives.base import Objective, Paper
from limbeck.objectives.companions import Branches
from limbeck.objectives.schedules import Ramp
from limbeck.signals import Batch, Signals


class ONE(Objective, name="one"):
    """Branches of the student learn the labels and what their gated ensemble says; the ensemble is the teacher.

    The student's last stage and all behind it exist M times, each with its own initialisation, from the output of the last
    stage but one, the trunk (B, D, H, W). Branch 0 is the student itself. A gate weighs the branches for each sample: the
    trunk's mean over the positions passes a linear layer to M numbers, batch norm, ReLU and a softmax over the branches. The
    ensemble's logits are the weighted sum of the branches' (B, C). Its divergence to each branch, at a temperature, sends
    no gradient to the ensemble. Samples are weighted by ``batch.weight`` when there is one. Terms: ``ce`` and ``from_ensemble``
    of the student, ``ensemble.ce`` of the ensemble, ``branch1.ce``, ``branch1.from_ensemble`` and so on. No teacher is
    used; one may be added, as in ``one + kd()``, for the student alone.

    The other branches and the gate are thrown away after the training: the student that is scored and kept is the plain
    network. The metrics have the accuracy of the other branches and of the ensemble on the training images since the line
    before. A branch whose logits in a batch are NaN, infinite or beyond 1e30 is left out of that step, with a warning; what
    it did to the trunk before stays.

    Args:
        branches: M, at least 1; with 1 the ensemble is the student and the loss twice its cross-entropy.
        temperature: τ > 0; the divergences are multiplied by τ².
        warmup_epochs: they have the weight exp(-5 (1 - t/warmup_epochs)²) in epoch t, counted from 0, and 1 from then on; 0
            for 1 from the start.

    Scale:
        Each ce is ln C at the start, and there are M + 1; the divergences begin small, at a weight of 0.0067.

    Differences:
        The 80 epochs of the rise are of 300 in the authors' code: give fewer for shorter runs. Their networks name the
        stage at which the branches part; here it is the last but one of the stages that ``limbeck inspect`` shows, and
        the part behind it is cut out of a network of the student's name by torch.fx, so the forward code that joins the
        stages must not branch on tensors. The gate's linear layer has no bias, which batch norm would take away; among several
        processes that norm is over the whole batch. Whether the authors count epochs from 0 or 1 was not recovered.
    """

    needs = frozenset({"labels", "logits", "peers", "trunk"})
    needs_teacher = False
    batch_coupled = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \sum_{m=0}^{M-1} \mathrm{CE}(z^m) + \mathrm{CE}(z^e) + w(t)\, \tau^2 \sum_{m=0}^{M-1} \frac{1}{B} "
        r"\sum_i \mathrm{KL}\!\left( p^e_i \,\|\, p^m_i \right), \quad z^e_i = \sum_m g_{im} z^m_i, \quad "
        r"p = \mathrm{softmax}(z / \tau), \quad "
        r"g = \mathrm{softmax}\!\left( \mathrm{ReLU}(\mathrm{BN}(W \bar{F})) \right)"
    )
    paper = Paper("Knowledge Distillation by On-the-Fly Native Ensemble", 2018, arxiv="1806.04606", venue="NeurIPS")
    presets = {"one": "one()"}
    weight: Tensor

    def __init__(self, *, branches: int = 3, temperature: float = 3.0, warmup_epochs: int = 80) -> None:
        super().__init__()
        check_whole("branches", branches, low=1)
        check_number("temperature", temperature, low=0.0, open_low=True)
        check_whole("warmup_epochs", warmup_epochs, low=0)
        self.branches, self.temperature, self.warmup_epochs = branches, temperature, warmup_epochs
        self._rise = Ramp(0.0, 1.0, warmup_epochs, shape="sigmoid") if warmup_epochs else None
        self.register_buffer("weight", torch.tensor(self._weight_at(0)))
        self.gate: nn.Sequential | None = None
        self.watch: Watch | None = None
        if branches == 1:
            self.needs, self.batch_coupled, self.minimum_batch = self.needs - {"peers", "trunk"}, False, 1

    def companions(self) -> Branches | None:
        return Branches(self.branches - 1) if self.branches > 1 else None

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        if student.peers is not None and self.branches > 1 and student.peers.shape[1] != self.branches - 1:
            raise SignalError(
                f"{self.expression()} has {self.branches - 1} branches beside the student, and there are "
                f"{student.peers.shape[1]}."
            )

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        device = student.logits.device
        self.to(device)
        names = [f"branch{number}" for number in range(1, self.branches)]
        self.watch = Watch(self.name, [*names, "ensemble"]).to(device)
        if self.branches > 1:
            assert student.trunk is not None
            # Without bias: the norm behind it takes away what all samples have in common.
            linear = nn.Linear(student.trunk.shape[1], self.branches, bias=False, device=device)
            self.gate = nn.Sequential(linear, nn.BatchNorm1d(self.branches, device=device))

    def start_epoch(self, epoch: int) -> None:
        self.weight.fill_(self._weight_at(epoch - 1))

    def _weight_at(self, epoch: int) -> float:
        return 1.0 if self._rise is None else self._rise.at(epoch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.watch is None:
            raise SettingError("one has no gate yet: call build(student, teacher) before you create the optimizer.")
        assert student.logits is not None
        alive = torch.ones(1, dtype=torch.bool, device=student.logits.device)
        branches = [student.logits]
        if self.branches > 1:
            assert student.peers is not None
            peers, others = sound(student.peers)
            branches, alive = [student.logits, *peers.unbind(1)], torch.cat([alive, others])
        ensemble = self._ensemble(student, branches, alive)
        self.watch.note([*branches[1:], ensemble], torch.cat([alive[1:], alive[:1]]), batch)
        terms = {"ensemble.ce": losses.mean(losses.cross_entropy(ensemble, batch.labels), weight=batch.weight)}
        for number, logits in enumerate(branches):
            prefix = f"branch{number}." if number else ""
            labels = losses.cross_entropy(logits, batch.labels)
            divergence = losses.kl_divergence(logits, ensemble.detach(), temperature=self.temperature)
            rise = self.weight * self.temperature**2
            terms[f"{prefix}ce"] = losses.mean(labels, weight=batch.weight) * alive[number]
            terms[f"{prefix}from_ensemble"] = rise * losses.mean(divergence, weight=batch.weight) * alive[number]
        return terms

    def _ensemble(self, student: Signals, branches: list[Tensor], alive: Tensor) -> Tensor:
        """(B, C) logits of all branches, weighed for each sample."""
        if self.gate is None:
            return branches[0]
        assert student.trunk is not None
        linear, norm = self.gate
        assert isinstance(linear, nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d)
        return _joined(torch.stack(branches, dim=1), self._shares(student.trunk, linear, norm, alive))

    def _shares(self, trunk: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d, alive: Tensor) -> Tensor:
        """(B, M) shares of the branches in the ensemble; 0 for one that has diverged."""
        scores = losses.project(trunk.mean(dim=(2, 3)), linear)
        if self.training:
            own = slice(rank() * len(scores), (rank() + 1) * len(scores))
            scores = _normed(gather_rows(scores), norm)[own]
        else:
            scores = _normed(scores, norm)
        return torch.where(alive, scores.relu(), -torch.inf).softmax(dim=1)

    def monitors(self) -> dict[str, Tensor]:
        own = {"weight": self.weight.clone()}
        return own if self.watch is None else own | self.watch.monitors()


@losses.in_float32
def _normed(scores: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    answer: Tensor = norm(scores)
    return answer


@losses.in_float32
def _joined(branches: Tensor, shares: Tensor) -> Tensor:
    return (shares[..., None] * branches).sum(dim=1)

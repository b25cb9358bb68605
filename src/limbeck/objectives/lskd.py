"""Standardised logits, for any objective that compares logits."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError
from limbeck.objectives.algebra import WeightedSum
from limbeck.objectives.base import Attack, InitialStage, Objective, Paper
from limbeck.objectives.kd import KD
from limbeck.signals import Batch, Signals, cleared


class LSKD(Objective, name="lskd"):
    """Another objective on logits that are standardised sample by sample, so that the student need not match their size.

    Logits (B, C) or (B, L, C) of student and teacher are centred and divided by their standard deviation over the classes
    before the objective in the parentheses sees them: ``lskd(kd(temperature=2))``, ``lskd(dkd())``, or a sum. Any objective
    that reads logits can stand there.

    Args:
        objective: what compares the standardised logits; ``kd(temperature=2)`` when left out.

    Scale:
        That of the objective inside, for logits of standard deviation 1; zero where the teacher's logits are the student's
        times a positive number plus a constant, if the objective inside is zero for equal logits.

    Differences:
        The paper adds its logit standardisation to KD, CTKD, DKD and MLKD; as an objective around another it is the same
        for all. The standard deviation is the unbiased one plus 1e-7, as in the authors' code. Their setting for KD is
        0.1·CE + 9·KD at a base temperature of 2 (between 2 and 4, and weights from 1 to 18, for some pairs).
    """

    takes_objective = True
    needs = frozenset({"logits"})
    formula = (
        r"\mathcal{L} = \mathcal{L}_{\mathrm{inner}}\!\left(\mathcal{Z}(z^S), \mathcal{Z}(z^T)\right), \quad "
        r"\mathcal{Z}(z)_c = \frac{z_c - \bar{z}}{\sigma(z)}"
    )
    paper = Paper("Logit Standardization in Knowledge Distillation", 2024, arxiv="2403.01427")
    presets = {"lskd": "0.1*ce + 9*lskd(kd(temperature=2))"}

    def __init__(self, objective: Objective | None = None) -> None:
        super().__init__()
        inner = KD(temperature=2.0) if objective is None else objective
        if not inner.needs_teacher or any("logits" not in part.needs for part in _parts(inner)):
            raise SettingError(f"objectives that compare logits must stand inside, and nothing else, got {inner}.")
        self.objective = inner
        self.needs = inner.needs
        traits = ("batch_coupled", "local_negatives", "zero_when_equal", "per_position", "any_vocabulary", "order_free")
        for trait in traits:
            setattr(self, trait, getattr(inner, trait))
        self.labels_of_first_view = inner.labels_of_first_view
        self.minimum_batch, self.equal_channels = inner.minimum_batch, inner.equal_channels
        self.dead_parameters = frozenset(f"objective.{name}" for name in inner.dead_parameters)

    def set_training_labels(self, labels: Tensor) -> None:
        self.objective.set_training_labels(labels)

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        self.objective.check(_standardised(student), _standardised(teacher), batch)

    def build(self, student: Signals, teacher: Signals) -> None:
        self.objective.build(_standardised(student), _standardised(teacher))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        return self.objective(_standardised(student), _standardised(teacher), batch)

    @property
    def only_initial(self) -> bool:
        return self.objective.only_initial

    def initial_stage(self) -> InitialStage | None:
        stage = self.objective.initial_stage()
        return None if stage is None else replace(stage, objective=LSKD(stage.objective))

    @property
    def attack(self) -> Attack | None:
        return self.objective.attack

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


def _parts(objective: Objective) -> list[Objective]:
    return [part for _, _, part in objective.entries()] if isinstance(objective, WeightedSum) else [objective]


def _standardised(signals: Signals) -> Signals:
    return replace(
        signals,
        logits=losses.standardise(cleared(signals.logits, signals.mask)),
        attacked=None if signals.attacked is None else losses.standardise(signals.attacked),
    )

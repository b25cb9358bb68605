"""Everything that trains, in one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from limbeck.heads import Projected
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


class Adapters(Protocol):
    """What alone learns in a student whose own weights are frozen; see ``limbeck.models.language.adapters``."""

    @property
    def module(self) -> nn.Module:
        """The adapters alone: their parameters and their ``state_dict``."""
        ...

    def fold(self) -> None:
        """Make them part of the student's weights; the student computes the same without them."""
        ...


@dataclass(frozen=True)
class Stage:
    """What trains, on which objective, for how long. A run is a list of stages.

    trains: of "student" and "objective" (its heads, and the networks beside the student). What does not train is in eval mode
        and keeps its weights.
    lr, schedule: the run's when None.
    """

    objective: Objective
    epochs: int
    trains: tuple[str, ...] = ("student", "objective")
    lr: float | None = None
    schedule: str | None = None


class Trainable(nn.Module):
    """Student, objectives of all stages and the networks that learn beside the student in one module.

    The optimizer, DDP or FSDP, ``torch.compile``, the moving average and the checkpoint all see this module, and so all that
    trains and nothing else. Its forward returns the weighted terms of the active stage's objective and the student's
    detached logits.

    Args:
        companions: from the student's inputs and signals to the logits of the networks beside it, (B, K, C) or (B, K, L, V),
            which are in its ``networks``; None where no objective asks for any.
        adapters: what alone learns in the student, so that nothing else of it is in a checkpoint; None where all of it does.
    """

    def __init__(
        self,
        student: Tapped,
        stages: Sequence[Stage],
        companions: nn.Module | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.companions = companions
        self.objectives = nn.ModuleList(stage.objective for stage in stages)
        self._trains = [stage.trains for stage in stages]
        # What its owner froze stays frozen.
        self._learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
        self.stage = 0
        self._adapters = adapters
        if adapters is not None:
            everything = student.named_parameters(remove_duplicate=False)
            self._frozen = {f"student.{name}" for name, _ in everything if name not in self._learning}
            nn.Module.register_state_dict_post_hook(self, _without_frozen)
            nn.Module.register_load_state_dict_post_hook(self, _frozen_may_be_missing)

    @property
    def objective(self) -> Objective:
        """The active stage's objective."""
        objective = self.objectives[self.stage]
        assert isinstance(objective, Objective)
        return objective

    def forward(self, inputs: Any, teacher: Signals, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        student: Signals = self.student(inputs) if self.objective.needs_student else Signals()
        if batch.attacked is not None:
            student, inputs = student.with_attacked(batch.attacked), inputs[: len(batch)]
        if self._has_company:
            student = with_peers(self.companions, inputs, student)
        if batch.labels.ndim == 2:
            # Prompts and what rows are filled up with are not learnt, whatever an objective looks at.
            student = replace(student, mask=batch.learnt)
        terms = self.objective(student, teacher, batch)
        return terms, None if student.logits is None else student.logits.detach()

    @property
    def _has_company(self) -> bool:
        return self.companions is not None and "peers" in self.objective.needs

    def activate(self, stage: int) -> None:
        """Switch to a stage: its objective computes the loss, and only what it trains asks for gradients."""
        self.stage = stage
        self._unfreeze_student("student" in self._trains[stage])
        for number, objective in enumerate(self.objectives):
            objective.requires_grad_(number == stage and "objective" in self._trains[stage])
        if self.companions is not None:
            self.companions.requires_grad_(self._has_company and "objective" in self._trains[stage])

    def apart(self) -> list[nn.Module]:
        """The networks beside the student, whose gradients are theirs alone."""
        if self.companions is None:
            return []
        networks = self.companions.networks
        assert isinstance(networks, nn.ModuleList)
        return list(networks)

    def shield(self) -> None:
        """Take what is not finite out of the gradients of networks that have diverged: the student's stay as they are."""
        for network in self.apart():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    @property
    def new_classifier(self) -> nn.Module | None:
        """What the last stage's objective puts in the place of the student's classifier, if anything."""
        final = self.objectives[-1]
        assert isinstance(final, Objective)
        return final.new_classifier()

    def logits(self, inputs: Any) -> Tensor:
        """The student's logits (B, C) or (B, L, V), of its new classifier if it gets one."""
        signals: Signals = self.student(inputs)
        head = self.new_classifier
        if head is None:
            assert signals.logits is not None
            return signals.logits
        assert signals.embedding_map is not None
        logits: Tensor = head(signals.embedding_map)
        return logits

    @property
    def adapted(self) -> bool:
        """Whether adapters alone learn in the student."""
        return self._adapters is not None

    def kept(self) -> dict[str, nn.Module]:
        """The modules whose weights training changes and selects, by the prefix of their names in the result."""
        if self._adapters is not None:
            return {"": self._adapters.module}
        head = self.new_classifier
        return {"": self.student.network} if head is None else {"network.": self.student.network, "head.": head}

    def release(self) -> nn.Module:
        """The finished student in eval mode, its parameters asking for gradients as they did at first.

        Where its classifier is replaced, the old one is taken out of the network, and this module's own forward ends. Adapters
        become part of its weights.
        """
        self._unfreeze_student(True)
        if self._adapters is not None:
            self._adapters.fold()
        head = self.new_classifier
        if head is None:
            return self.student.network.eval()
        path, classifier = self.student.paths["embedding_map"]["embedding_map"], self.student.classifier
        assert classifier is not None
        return Projected(self.student.network, path, classifier, head).eval()

    def _unfreeze_student(self, learns: bool) -> None:
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(learns and name in self._learning)

    def train(self, mode: bool = True) -> Trainable:
        super().train(mode)
        if mode:
            self.student.train("student" in self._trains[self.stage])
            self.objective.train("objective" in self._trains[self.stage])
            if self.companions is not None:
                self.companions.train("objective" in self._trains[self.stage])
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that their objective or network exempts from weight decay."""
        exempt = set()
        for number, objective in enumerate(self.objectives):
            assert isinstance(objective, Objective)
            exempt |= {f"objectives.{number}.{name}" for name in objective.no_weight_decay()}
        for prefix, network in (("student.network", self.student.network), ("companions", self.companions)):
            own = getattr(network, "no_weight_decay", None)  # the convention of timm
            if callable(own):
                exempt |= {f"{prefix}.{name}" for name in own()}
        return exempt


def _without_frozen(trainable: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    # As large as the student, and the same in every checkpoint.
    assert isinstance(trainable, Trainable)
    for name in trainable._frozen:
        state.pop(prefix + name, None)


def _frozen_may_be_missing(trainable: nn.Module, keys: Any) -> None:
    assert isinstance(trainable, Trainable)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name not in trainable._frozen]


def with_peers(companions: nn.Module | None, inputs: Any, student: Signals) -> Signals:
    """The student's signals with the logits of the networks beside it, where there are any."""
    return student if companions is None else replace(student, peers=companions(inputs, student))

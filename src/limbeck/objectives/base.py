"""The contract of an objective."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives.companions import Companions
from limbeck.objectives.needs import check_needs
from limbeck.objectives.registry import register
from limbeck.objectives.schedules import Weight
from limbeck.signals import Batch, Signals

if TYPE_CHECKING:
    from limbeck.objectives.algebra import WeightedSum


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    year: int
    arxiv: str | None = None
    venue: str | None = None

    @property
    def link(self) -> str | None:
        """Address of the abstract, when the paper is on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None


@dataclass(frozen=True)
class InitialStage:
    """What comes before the main stage of a staged method: alone, at weight 1 and a learning rate that does not decay.

    See :class:`limbeck.engine.trainable.Stage` for the rest.
    """

    objective: Objective
    epochs: int
    trains: tuple[str, ...] = ("student", "objective")
    lr: float | None = None


@dataclass(frozen=True)
class Attack:
    """What an objective asks to be attacked on the teacher before each step; see :func:`limbeck.evaluate.attacks.boundary`.

    samples: images of the batch, over all processes. steps, step, epsilon, clip: of the attack, in units of the teacher's
    normalisation.
    """

    samples: int
    steps: int
    step: float
    epsilon: float
    clip: float


class Objective(nn.Module):
    """What is compared between student and teacher.

    A subclass with ``name="…"`` in its class line is registered under that name: it then appears in expressions, in
    ``limbeck list``, in ``limbeck explain`` and in the contract test. An objective sees Signals and the batch; it never sees
    a network, a file or a device.

    Class attributes:
        needs: checked before the first step; of ``labels``, ``logits``, ``embedding``, ``index`` (of each sample in the
            training set), ``features`` and ``preactivations`` (maps of stages that both networks have), ``stages`` (maps of
            the stages of both, matched or not), ``stem``, ``embedding_map``, ``classifier`` (the teacher's weights), ``attack``
            (images attacked on the teacher, as ``attack`` says), ``peers`` (logits of the networks that :meth:`companions`
            asks for), ``trunk`` (where the student's branches part) and ``documents`` (embeddings of each query's documents).
        needs_teacher: False for losses of the student alone.
        needs_student: False for losses of the teacher's signals alone, as in a first stage that trains a head on them.
        batch_coupled: True when the loss of a sample depends on the others in the batch. Such a batch is not silently split
            into micro-batches.
        local_negatives: True when, among several processes, each keeps to its own samples by definition.
        zero_when_equal: True when the loss is zero for a student whose signals are the teacher's.
        per_position: True when (B, L, V) logits of token models with labels and a mask (B, L) are understood.
        any_vocabulary: True when the teacher's logits may have other classes, or tokens, than the student's.
        order_free: False when the order of the samples in a batch changes the loss by definition.
        minimum_batch: the smallest batch for which the formula is defined: 2 where samples are compared.
        labels_of_first_view: True when, in a batch that holds several views of each sample, only the labels of the first
            are read.
        labels_of_mixtures: True when ``batch.other_labels`` and ``batch.share`` are read too.
        takes_objective: True when another objective stands in its parentheses, as in ``lskd(kd())``: the first argument of
            ``__init__``, called ``objective``.
        equal_channels: True when the maps of student and teacher must have equally many channels.
        dead_parameters: parameters that receive no gradient by definition, with the reason in the docstring.
        formula: LaTeX of the loss.
        paper: where it was published.
        presets: named expressions in which the method is used, such as ``{"icd": "ce + icd()"}``.

    Every argument of ``__init__`` is stored under its own name, so that the objective can be written back as text.
    """

    name: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()
    needs_teacher: bool = True
    needs_student: bool = True
    batch_coupled: bool = False
    local_negatives: bool = False
    zero_when_equal: bool = False
    per_position: bool = False
    any_vocabulary: bool = False
    order_free: bool = True
    minimum_batch: int = 1
    equal_channels: bool = False
    labels_of_first_view: bool = False
    labels_of_mixtures: bool = False
    takes_objective: ClassVar[bool] = False
    dead_parameters: frozenset[str] = frozenset()
    formula: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    presets: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, *, name: str | None = None, aliases: tuple[str, ...] = (), **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if name is not None:
            cls.name = name
            register(cls, name, aliases)

    def set_training_labels(self, labels: Tensor) -> None:
        """Take the (n,) int64 labels by sample index, -1 where no training sample has that index.

        Called before ``build`` where ``index`` is needed.
        """

    def build(self, student: Signals, teacher: Signals) -> None:
        """Make heads and buffers, sized from the signals of one probe batch. Called once, before the optimizer exists."""

    @property
    def only_initial(self) -> bool:
        """Whether it trains in a stage of its own before the main one, and then no more."""
        return bool(getattr(self, "init_epochs", 0))

    def initial_stage(self) -> InitialStage | None:
        """What comes before the main stage; by default the objective itself for its ``init_epochs``, if it has such."""
        return InitialStage(self, getattr(self, "init_epochs", 0)) if self.only_initial else None

    @property
    def attack(self) -> Attack | None:
        """Which images of the next step are to be attacked on the teacher; None for none."""
        return None

    def set_epochs(self, epochs: int) -> None:
        """Told how many epochs its stage has, before the first of them."""

    def companions(self) -> Companions | None:
        """The networks that it wants to learn beside the student; their logits are the student's ``peers``."""
        return None

    def start_epoch(self, epoch: int) -> None:
        """Told the number of the epoch that begins, from 1 in each stage; for weights that change over time."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is the loss."""
        raise SettingError(f"{type(self).__name__} defines no forward(student, teacher, batch).")

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        """The terms of :meth:`forward`. The teacher's signals are cut off from its graph first: a teacher never learns here."""
        terms: dict[str, Tensor] = super().__call__(student, teacher.detach(), batch)
        return terms

    def new_classifier(self) -> nn.Module | None:
        """What takes the place of the student's classifier when the training is over, if anything does.

        A module from the student's ``embedding_map`` to logits, with its own arguments in ``arguments``: see
        :class:`limbeck.heads.BottleneckClassifier`.
        """
        return None

    def monitors(self) -> dict[str, Tensor]:
        """Detached scalars worth logging that are not part of the loss, such as a learned temperature."""
        return {}

    def after_step(self) -> None:
        """Bring own parameters back into their range; called after each step of the optimizer."""

    def no_weight_decay(self) -> set[str]:
        """Names of own parameters that weight decay leaves alone."""
        return set()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The keyword arguments of ``__init__`` and their defaults.

        ``inspect.Parameter.empty`` stands for those that must be given.
        """
        if cls.__init__ is Objective.__init__:
            return {}
        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def arguments(self) -> dict[str, Any]:
        """The arguments it was made with, by name."""
        return {name: getattr(self, name) for name in self.defaults()}

    def expression(self) -> str:
        """The text that makes this objective again: the name and the arguments that are not at their default."""
        defaults = self.defaults()
        given = [f"{key}={value!r}" for key, value in self.arguments().items() if value != defaults[key]]
        inside = [str(self.objective)] if self.takes_objective else []
        return f"{self.name}({', '.join(inside + given)})"

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Raise SignalError with a sentence on each need that these signals do not meet."""
        check_needs(self, student, teacher, batch)
        self.check_batch_size(len(batch))

    def check_batch_size(self, size: int) -> None:
        """Raise SignalError for batches that are too small to compare samples in."""
        if size < self.minimum_batch:
            raise SignalError(
                f"{self.expression()} compares samples of a batch: it needs at least {self.minimum_batch}, got {size}."
            )

    # The algebra is made of objectives, so it is imported where it is used.

    def __add__(self, other: Objective) -> WeightedSum:
        from limbeck.objectives.algebra import added

        return added(self, other)

    def __radd__(self, other: object) -> WeightedSum:
        # sum([CE(), KD()]) starts from the number 0.
        if isinstance(other, int) and other == 0:
            from limbeck.objectives.algebra import added

            return added(self)
        return NotImplemented

    def __mul__(self, weight: Weight) -> WeightedSum:
        from limbeck.objectives.algebra import weighted

        return weighted(self, weight)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.expression()

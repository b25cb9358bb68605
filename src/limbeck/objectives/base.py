"""The contract of an objective, and the algebra that adds and weighs objectives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError, is_finite
from limbeck.objectives.companions import Companions
from limbeck.objectives.registry import register
from limbeck.objectives.schedules import Schedule, Weight, weight_text
from limbeck.signals import Batch, Signals, paired


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
            asks for) and ``trunk`` (where the student's branches part).
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
        student_has, teacher_has = student.available(), teacher.available()
        for need in sorted(self.needs - {"labels", "index", "attack"}):
            kind = "features" if need == "stages" else need
            for who, has in (("teacher", teacher_has), ("student", student_has)):
                if who == "teacher":
                    asked = self.needs_teacher and need not in _OF_STUDENT
                else:
                    asked = self.needs_student and need != "classifier"
                if asked and kind not in has:
                    raise SignalError(f"{self.expression()} needs the {who}'s {need}: {_HOW_TO_GIVE.get(need, '')}")
        tokens = student.logits is not None and student.logits.ndim == 3
        if tokens and "logits" in self.needs and not self.per_position:
            raise SignalError(
                f"{self.expression()} is for logits (B, C), and the student's are {_shape(student.logits)}."
            )
        if "logits" in self.needs and self.needs_student and self.needs_teacher and not self.any_vocabulary:
            self._check_classes(student, teacher)
        mixed = batch.mixed[:1] if self.labels_of_first_view else batch.mixed
        told = self.labels_of_mixtures and batch.share is not None
        if "labels" in self.needs and any(mixed) and not told:
            raise SignalError(
                f"{self.expression()} reads the labels, and view {mixed.index(True) + 1} mixes each sample with another (mixup "
                "or cutmix), of which the label is not the mixture's. Mix in a view beside a plain first one, with "
                "ce(views='first'), as in --augment 'flip | flip,mixup=0.2'; or take objectives that read no labels."
            )
        if "index" in self.needs and batch.index is None:
            raise SignalError(f"{self.expression()} needs each sample's index, and the batches carry none.")
        if self.needs_teacher and self.needs_student:
            self._check_maps(student, teacher)
        self.check_batch_size(len(batch))

    def _check_classes(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        assert teacher.logits is not None
        if student.logits.shape != teacher.logits.shape:
            raise SignalError(
                f"{self.expression()} compares logits class by class, and the student's are {_shape(student.logits)}, the "
                f"teacher's {_shape(teacher.logits)}. uld() compares those of token models with different vocabularies."
            )

    def check_batch_size(self, size: int) -> None:
        """Raise SignalError for batches that are too small to compare samples in."""
        if size < self.minimum_batch:
            raise SignalError(
                f"{self.expression()} compares samples of a batch: it needs at least {self.minimum_batch}, got {size}."
            )

    def _check_maps(self, student: Signals, teacher: Signals) -> None:
        groups = [(need, getattr(student, need), getattr(teacher, need)) for need in _PAIRED if need in self.needs]
        if "stem" in self.needs:
            groups.append(("stem", {"stem": student.stem}, {"stem": teacher.stem}))
        for need, ours, theirs in groups:
            pairs = paired(ours, theirs)
            if not pairs:
                raise SignalError(
                    f"{self.expression()} compares {need} stage by stage, and none of the student's ({_shapes(ours)}) is "
                    f"matched with one of the teacher's ({_shapes(theirs)}); {_HOW_TO_GIVE['features']}"
                )
            for name, one, other in pairs:
                if self.equal_channels and one.shape[1] != other.shape[1]:
                    raise SignalError(
                        f"{self.expression()} has no projection: the student's {need} must have as many channels as the "
                        f"teacher's, and at '{name}' they have {one.shape[1]} and {other.shape[1]}. It is for networks of "
                        "one family and width."
                    )

    def __add__(self, other: Objective) -> WeightedSum:
        return WeightedSum([*_weighted(self), *_weighted(other)])

    def __radd__(self, other: object) -> WeightedSum:
        # sum([CE(), KD()]) starts from the number 0.
        if isinstance(other, int) and other == 0:
            return WeightedSum(_weighted(self))
        return NotImplemented

    def __mul__(self, weight: Weight) -> WeightedSum:
        _check_weight(self, weight)
        return WeightedSum([(weight * inner, part) for inner, part in _weighted(self)])

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.expression()


_HOW_TO_GIVE = {
    "embedding": "the input of the classifier was not tapped; name its layer with 'classifier'.",
    "features": "name the layers with 'taps', as in taps={'layer2': 'blocks.3'}.",
    "stages": "name the layers with 'taps', as in taps={'layer2': 'blocks.3'}.",
    "preactivations": "name the layers with 'taps', as in taps={'layer2.0.relu:input': 'blocks.3'}.",
    "stem": "the end of its first convolution is not known.",
    "embedding_map": "no map was found whose mean over the positions is the classifier's input.",
    "classifier": "its logits must come from one linear layer.",
    "logits": "the network returns none.",
    "peers": "no networks learn beside it; limbeck's own runs make them, a loop of yours gives them in Signals.peers.",
    "trunk": "no map is known at which its branches part; limbeck's own runs tap it, a loop of yours gives Signals.trunk.",
}
_PAIRED = ("features", "preactivations")
_OF_STUDENT = ("peers", "trunk")


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(tuple(value.shape))


def _shapes(maps: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, value.shape[1:]))}" for name, value in maps.items())


def _check_weight(part: Objective, weight: object) -> None:
    if isinstance(weight, Schedule):
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not is_finite(weight):
        raise SettingError(f"the weight of {part} must be a finite number or a schedule, got {weight!r}.")


def _weighted(objective: Objective) -> list[tuple[Weight, Objective]]:
    if isinstance(objective, WeightedSum):
        return [(weight, part) for _, weight, part in objective.entries()]
    if not isinstance(objective, Objective):
        raise SettingError(f"only objectives can be added, got {objective!r}.")
    return [(1.0, objective)]


class WeightedSum(Objective):
    """Σ_k w_k · objective_k. Its terms are the weighted terms of its parts, so that they sum to the loss.

    A weight is a number or a schedule (see :mod:`limbeck.objectives.schedules`), whose weight of the present epoch is a
    monitor, ``weight.PART``. Until ``start_epoch`` is called it is that of the first epoch. Parts of weight zero are left
    out; those whose schedule is zero for a while are still computed. A sum without any part can be added to, and is an error
    where it is used.
    """

    def __init__(self, parts: list[tuple[Weight, Objective]]) -> None:
        super().__init__()
        for weight, part in parts:
            _check_weight(part, weight)
        parts = [
            (weight if isinstance(weight, Schedule) else float(weight), part) for weight, part in parts if weight != 0
        ]
        self.weights: tuple[Weight, ...] = tuple(weight for weight, _ in parts)
        for i, schedule in self._schedules():
            # A tensor: of a number, torch.compile would make a new program every epoch.
            self.register_buffer(f"weight{i}", torch.tensor(schedule.at(0)))
        self.parts = nn.ModuleList(part for _, part in parts)
        self.keys = _unique([part.name for _, part in parts])
        self.needs = frozenset().union(*(part.needs for _, part in parts))
        self.needs_teacher = any(part.needs_teacher for _, part in parts)
        self.needs_student = any(part.needs_student for _, part in parts)
        self.batch_coupled = any(part.batch_coupled for _, part in parts)
        self.order_free = all(part.order_free for _, part in parts)
        self.per_position = all(part.per_position for _, part in parts)
        self.any_vocabulary = all(part.any_vocabulary for _, part in parts)
        self.zero_when_equal = all(part.zero_when_equal for _, part in parts)
        reading = [part for _, part in parts if "labels" in part.needs]
        self.labels_of_first_view = all(part.labels_of_first_view for part in reading)
        self.minimum_batch = max((part.minimum_batch for _, part in parts), default=1)
        self.local_negatives = any(part.local_negatives for _, part in parts)
        self.dead_parameters = frozenset(
            f"parts.{i}.{name}" for i, (_, part) in enumerate(parts) for name in part.dead_parameters
        )

    def _schedules(self) -> list[tuple[int, Schedule]]:
        return [(i, weight) for i, weight in enumerate(self.weights) if isinstance(weight, Schedule)]

    def entries(self) -> list[tuple[str, Weight, Objective]]:
        """Its parts: the name under which terms are logged, the weight, and the objective."""
        parts = [part for part in self.parts if isinstance(part, Objective)]
        return list(zip(self.keys, self.weights, parts, strict=True))

    def check_not_empty(self) -> None:
        """Raise SettingError when no part is left."""
        if not self.weights:
            raise SettingError("every weight of the objective is zero, so there is nothing to train on.")

    def set_training_labels(self, labels: Tensor) -> None:
        for _, _, part in self.entries():
            part.set_training_labels(labels)

    def build(self, student: Signals, teacher: Signals) -> None:
        self.check_not_empty()
        for _, _, part in self.entries():
            part.build(student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        self.check_not_empty()
        terms = {}
        for i, (key, weight, part) in enumerate(self.entries()):
            now = getattr(self, f"weight{i}") if isinstance(weight, Schedule) else weight
            for term, value in part(student, teacher, batch).items():
                terms[_join(key, term)] = now * value
        return terms

    def new_classifier(self) -> nn.Module | None:
        heads = [head for _, _, part in self.entries() if (head := part.new_classifier()) is not None]
        if len(heads) > 1:
            raise SettingError(f"'{self}': two objectives would replace the student's classifier.")
        return heads[0] if heads else None

    def companions(self) -> Companions | None:
        asked = {str(part): wanted for _, _, part in self.entries() if (wanted := part.companions()) is not None}
        if len(set(asked.values())) > 1:
            raise SettingError(
                f"{' and '.join(asked)} each ask for other networks beside the student; take one of them, or the same peers."
            )
        return next(iter(asked.values()), None)

    def monitors(self) -> dict[str, Tensor]:
        weights = {f"weight.{self.keys[i]}": getattr(self, f"weight{i}").clone() for i, _ in self._schedules()}
        own = {_join(key, name): value for key, _, part in self.entries() for name, value in part.monitors().items()}
        return weights | own

    def no_weight_decay(self) -> set[str]:
        entries = enumerate(self.entries())
        return {f"parts.{i}.{name}" for i, (_, _, part) in entries for name in part.no_weight_decay()}

    def after_step(self) -> None:
        for _, _, part in self.entries():
            part.after_step()

    @property
    def attack(self) -> Attack | None:
        asked = dict.fromkeys(attack for _, _, part in self.entries() if (attack := part.attack) is not None)
        if len(asked) > 1:
            raise SettingError(f"'{self}': two objectives ask for different attacks, and a step has one.")
        return next(iter(asked), None)

    def set_epochs(self, epochs: int) -> None:
        for _, _, part in self.entries():
            part.set_epochs(epochs)

    def start_epoch(self, epoch: int) -> None:
        for i, schedule in self._schedules():
            getattr(self, f"weight{i}").fill_(schedule.at(epoch - 1))
        for _, _, part in self.entries():
            part.start_epoch(epoch)

    def check_batch_size(self, size: int) -> None:
        for _, _, part in self.entries():
            part.check_batch_size(size)

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        for _, _, part in self.entries():
            part.check(student, teacher, batch)

    def expression(self) -> str:
        return " + ".join(
            part.expression() if weight == 1 else f"{weight_text(weight)}*{part.expression()}"
            for _, weight, part in self.entries()
        )


def _join(part: str, term: str) -> str:
    return part if term == part else f"{part}.{term}"


def _unique(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}{names[: i + 1].count(name)}" for i, name in enumerate(names)]

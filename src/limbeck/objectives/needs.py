"""Whether signals hold what an objective needs, and how to give what they lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from limbeck.errors import SignalError
from limbeck.signals import Batch, Signals, paired

if TYPE_CHECKING:
    from limbeck.objectives.base import Objective

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
    "documents": "it is for search, where Signals.documents holds the embeddings (B, M, D) of each query's documents.",
    "extra": "no queries without judgements are there; runs on search take a file of them with extra_queries.",
}
_PAIRED = ("features", "preactivations")
_OF_STUDENT = ("peers", "trunk")


def check_needs(objective: Objective, student: Signals, teacher: Signals, batch: Batch) -> None:
    """Raise SignalError with a sentence on each need that these signals do not meet."""
    student_has, teacher_has = student.available(), teacher.available()
    for need in sorted(objective.needs - {"labels", "index", "attack"}):
        kind = "features" if need == "stages" else need
        for who, has in (("teacher", teacher_has), ("student", student_has)):
            if who == "teacher":
                asked = objective.needs_teacher and need not in _OF_STUDENT
            else:
                asked = objective.needs_student and need != "classifier"
            if asked and kind not in has:
                raise SignalError(f"{objective.expression()} needs the {who}'s {need}: {_HOW_TO_GIVE.get(need, '')}")
    tokens = student.logits is not None and student.logits.ndim == 3
    if tokens and "logits" in objective.needs and not objective.per_position:
        raise SignalError(
            f"{objective.expression()} is for logits (B, C), and the student's are {_shape(student.logits)}."
        )
    if (
        "logits" in objective.needs
        and objective.needs_student
        and objective.needs_teacher
        and not objective.any_vocabulary
    ):
        _check_classes(objective, student, teacher)
    mixed = batch.mixed[:1] if objective.labels_of_first_view else batch.mixed
    told = objective.labels_of_mixtures and batch.share is not None
    if "labels" in objective.needs and any(mixed) and not told:
        raise SignalError(
            f"{objective.expression()} reads the labels, and view {mixed.index(True) + 1} mixes each sample with another "
            "(mixup or cutmix), of which the label is not the mixture's. Mix in a view beside a plain first one, with "
            "ce(views='first'), as in --augment 'flip | flip,mixup=0.2'; or take objectives that read no labels."
        )
    if "index" in objective.needs and batch.index is None:
        raise SignalError(f"{objective.expression()} needs each sample's index, and the batches carry none.")
    if objective.needs_teacher and objective.needs_student:
        _check_maps(objective, student, teacher)


def _check_classes(objective: Objective, student: Signals, teacher: Signals) -> None:
    assert student.logits is not None
    assert teacher.logits is not None
    if student.logits.shape != teacher.logits.shape:
        raise SignalError(
            f"{objective.expression()} compares logits class by class, and the student's are {_shape(student.logits)}, the "
            f"teacher's {_shape(teacher.logits)}. uld() compares those of token models with different vocabularies."
        )


def _check_maps(objective: Objective, student: Signals, teacher: Signals) -> None:
    groups = [(need, getattr(student, need), getattr(teacher, need)) for need in _PAIRED if need in objective.needs]
    if "stem" in objective.needs:
        groups.append(("stem", {"stem": student.stem}, {"stem": teacher.stem}))
    for need, ours, theirs in groups:
        pairs = paired(ours, theirs)
        if not pairs:
            raise SignalError(
                f"{objective.expression()} compares {need} stage by stage, and none of the student's ({_shapes(ours)}) is "
                f"matched with one of the teacher's ({_shapes(theirs)}); {_HOW_TO_GIVE['features']}"
            )
        for name, one, other in pairs:
            if objective.equal_channels and one.shape[1] != other.shape[1]:
                raise SignalError(
                    f"{objective.expression()} has no projection: the student's {need} must have as many channels as the "
                    f"teacher's, and at '{name}' they have {one.shape[1]} and {other.shape[1]}. It is for networks of "
                    "one family and width."
                )


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(tuple(value.shape))


def _shapes(maps: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, value.shape[1:]))}" for name, value in maps.items())

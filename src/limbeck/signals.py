"""What flows through the house: a batch, and what a network says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# The label of a position at which nothing is learnt.
IGNORED = -100


# The fields with a row for each sample, and those with several such tensors by name.
_EACH_ROW = ("logits", "embedding", "stem", "embedding_map", "attacked", "peers", "trunk", "documents", "extra")
_GROUPS = ("features", "preactivations")


@dataclass(frozen=True)
class Signals:
    """What a network says about a batch of B samples.

    logits: (B, C) class scores before the softmax, or (B, L, V) for token models.
    embedding: (B, D) input of the classifier, or a pooled sentence vector.
    features: outputs of the network's stages by name, from shallow to deep, each (B, channels, H, W). A stage of the student
        and a stage of the teacher that are compared with each other have the same name.
    preactivations: the same stages, under the same names, before their last ReLU.
    stem: (B, channels, H, W) output of the first convolution.
    embedding_map: (B, D, H, W) map whose mean over the positions is the embedding.
    attacked: (B, C) logits for the attacked image of each sample, where ``Batch.attacked`` says that there is one.
    peers: (B, K, C) logits of the K networks that learn beside a student, or (B, K, L, V) of token models, in the student's
        signals alone.
    trunk: (B, channels, H, W) map at which a student's branches part.
    documents: (B, M, D) embeddings of the M documents of each query in search, its positive first; ``embedding`` then holds
        those of the queries, and ``logits`` (B, N) the scores of each query and N documents, -inf where a pair is left out,
        with the place of the positive as its label.
    extra: (B, D) embeddings of as many further queries, to which no answer is known.
    mask: (B, L) bool, True where a position counts; None when all do.
    constants: tensors that do not depend on the batch, in the signals of the probe alone: ``classifier.weight`` (C, D) and
        ``classifier.bias`` (C,) of the network, and for a pre-activation NAME the ``NAME.shift`` and ``NAME.scale``
        (channels,) of the batch norm before it.
    """

    logits: Tensor | None = None
    embedding: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    preactivations: Mapping[str, Tensor] = field(default_factory=dict)
    stem: Tensor | None = None
    embedding_map: Tensor | None = None
    attacked: Tensor | None = None
    peers: Tensor | None = None
    trunk: Tensor | None = None
    documents: Tensor | None = None
    extra: Tensor | None = None
    mask: Tensor | None = None
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> Signals:
        """A copy with ``function`` applied to every tensor that has a row for each sample, but the mask."""
        changed: dict[str, Any] = {
            name: function(value) for name in _EACH_ROW if (value := getattr(self, name)) is not None
        }
        for group in _GROUPS:
            changed[group] = {name: function(value) for name, value in getattr(self, group).items()}
        return replace(self, **changed)

    def with_attacked(self, places: Tensor) -> Signals:
        """The signals of a batch of which the attacked images were the last rows; ``places`` is ``Batch.attacked``."""
        assert self.logits is not None
        own, last = self.map(lambda value: value[: len(places)]), self.logits[len(places) :]
        return replace(own, attacked=last[places.clamp(min=0)])

    def detach(self) -> Signals:
        """A copy cut off from the autograd graph."""
        return self.map(Tensor.detach)

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Signals:
        """A copy whose maps have other names: for "features" and "preactivations", new name to present one.

        Maps that are not named are left out.
        """
        return replace(
            self,
            features={new: self.features[name] for new, name in names.get("features", {}).items()},
            preactivations={new: self.preactivations[name] for new, name in names.get("preactivations", {}).items()},
        )

    def available(self) -> set[str]:
        """Names of the signals that are present: the names of the fields, and ``classifier`` for its weights."""
        names = {part.name for part in fields(self)} - {"constants"}
        found = {name for name in names if _present(self, name)}
        return found | ({"classifier"} if "classifier.weight" in self.constants else set())

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Signals:
        """The signals that :meth:`tensors` took apart."""
        values: dict[str, Any] = {group: {} for group in _GROUPS}
        for name, value in tensors.items():
            group, _, inner = name.partition(".")
            (values[group] if inner else values)[inner or name] = value
        return cls(**values)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that has a row for each sample, by a name that tells where it is."""
        found = {name: getattr(self, name) for name in _EACH_ROW if _present(self, name)}
        for group in _GROUPS:
            found |= {f"{group}.{name}": value for name, value in getattr(self, group).items()}
        return found


def counted(signals: Signals, batch: Batch) -> Tensor | None:
    """(B, L) bool positions of token models that have a label and are not masked; None for (B, C) logits, which all count."""
    if batch.labels.ndim == 1:
        return signals.mask
    labelled = batch.labels != IGNORED
    return labelled if signals.mask is None else labelled & signals.mask


def cleared(values: Tensor | None, mask: Tensor | None) -> Tensor:
    """Logits (B, L, V) or labels (B, L) with 0 at the positions that the mask (B, L) leaves out, and without a gradient there.

    What stands there may be NaN or no class at all, and a NaN would outlast the product with a gradient of 0.
    """
    assert values is not None
    if mask is None:
        return values
    return values.where(mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim)), 0)


def rows(student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals, Batch]:
    """The logits of token models as if each of the N positions that count were a sample: (N, V), labels (N,), weight (N,).

    So an objective for (B, C) logits serves them as well. Those are given back as they are. The positions are copied, and a
    GPU is waited for, since N is not known before: a loss that can pass over masked positions itself should.
    """
    if student.logits is None or student.logits.ndim < 3:
        return student, teacher, batch
    assert teacher.logits is not None
    counts = counted(student, batch)
    if counts is None:
        counts = torch.ones(student.logits.shape[:2], dtype=torch.bool, device=student.logits.device)
    labels = batch.labels[counts] if batch.labels.ndim == 2 else batch.labels[:, None].expand(counts.shape)[counts]
    weight = None if batch.weight is None else batch.weight[:, None].expand(counts.shape)[counts]
    # Objectives never see the inputs, and there is none for each position.
    chosen = replace(batch, inputs=labels, labels=labels, index=None, view=None, weight=weight, copies=1, mixed=())
    ours, theirs = student.logits[counts], teacher.logits[counts]
    return replace(student, logits=ours, mask=None), replace(teacher, logits=theirs, mask=None), chosen


def last_map(signals: Signals) -> Tensor:
    """(B, C, H, W) map of the deepest stage."""
    return list(signals.features.values())[-1]


def _present(signals: Signals, name: str) -> bool:
    value = getattr(signals, name)
    return bool(value) if isinstance(value, Mapping) else value is not None


def paired(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """(name, student's map, teacher's map) of the stages that both have, in the student's order."""
    return [(name, value, teacher[name]) for name, value in student.items() if name in teacher]


@dataclass(frozen=True)
class Batch:
    """A batch of B samples as the loader gives it.

    inputs: what both networks see, before each network's own preprocessing; images are uint8 (B, C, H, W), text is
        ``limbeck.tokens.Tokens``.
    labels: (B,) int64 classes, or (B, L) at each position of token models the token that comes next, -100 where nothing is
        learnt: in a prompt but for its last token, at the last token of an example, and where a row is filled up. Logits at a
        position are compared with the label at the same one; nothing is shifted again.
    index: (B,) int64 position of each sample in its data set; where rows of tokens are packed (B, K), of the examples in each
        row, -1 for none.
    view: (B,) int64 id of each sample's augmentation; the same id makes the same pixels again.
    weight: (B,) float weight of each sample in objectives that average over samples; None for equal weights.
    copies: how many views of each sample the batch holds; the first B / copies rows are the first view of each sample, the
        next B / copies rows the second view of the same samples, and so on.
    mixed: for each view, whether its images are mixtures with others, of which ``labels`` are not the labels; empty where
        none is.
    other_labels, share: where samples are mixed with others in a way that labels can follow, (B,) int64 the label of the other
        one, and (B,) float32 the part that the sample itself has, 1 in a view that does not mix; None elsewhere.
    attacked: (B,) int64 place of each sample's attacked image among those that go through the networks after the batch's own,
        -1 where it has none; None where nothing was attacked.
    excluded: (B, C) bool, the classes that are no answer to a sample, whose logits are -inf, as of documents in search; None
        for none.
    unscored: (B, C) bool, the classes that the teacher was not asked about, whose logits are -inf with the teacher alone, as of
        documents that only other queries brought; None for none. What compares logits with the teacher's leaves them out.
    """

    inputs: Any
    labels: Tensor
    index: Tensor | None = None
    view: Tensor | None = None
    weight: Tensor | None = None
    copies: int = 1
    mixed: tuple[bool, ...] = ()
    attacked: Tensor | None = None
    other_labels: Tensor | None = None
    share: Tensor | None = None
    excluded: Tensor | None = None
    unscored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def learnt(self) -> Tensor:
        """Bool, of the labels' shape: where there is something to learn."""
        return self.labels != IGNORED

    @property
    def predictions(self) -> int | Tensor:
        """How many predictions are learnt: one a sample, or one a position of token models, counted on the device."""
        return len(self) if self.labels.ndim == 1 else self.learnt.sum()

    @property
    def without_score(self) -> Tensor | None:
        """(B, C) bool, where the teacher's logits are -inf: what is excluded or unscored; None for nowhere."""
        if self.excluded is None or self.unscored is None:
            return self.unscored if self.excluded is None else self.excluded
        return self.excluded | self.unscored

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A copy with ``function`` applied to every tensor that is present."""
        tensors = {name: pytree.tree_map_only(Tensor, function, getattr(self, name)) for name in _TENSORS}
        return replace(self, **tensors)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device; the copy does not wait for the device."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        # Which views the rows are of is not known any more.
        return replace(self.map(lambda value: value[rows]), copies=1, mixed=())

    def samples(self, chosen: slice) -> Batch:
        """Some of its samples, each in all of its views."""
        return self.map(lambda value: value.unflatten(0, (self.copies, -1))[:, chosen].flatten(0, 1))


_TENSORS = ("inputs", "labels", "index", "view", "weight", "attacked", "other_labels", "share", "excluded", "unscored")


def not_finite(values: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Where values are NaN or infinite; not where they are -inf because they are ``excluded`` (see ``Batch``)."""
    bad = ~values.isfinite()
    return bad if excluded is None else bad & ~(excluded & values.isneginf())


def tensors_in(inputs: Any) -> list[Tensor]:
    """The tensors of a batch's inputs, or of what a network takes."""
    return [value for value in pytree.tree_leaves(inputs) if isinstance(value, Tensor)]


def scored_by_teacher(student: Signals, batch: Batch) -> Signals:
    """The student's signals, whose logits are -inf where the teacher has no score to compare them with."""
    if batch.unscored is None or student.logits is None:
        return student
    return replace(student, logits=student.logits.masked_fill(batch.unscored, -torch.inf))


class Batches(Protocol):
    """Batches for training.

    batch_size: samples of a global batch, over all processes.
    """

    @property
    def batch_size(self) -> int: ...

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """This process's part of the batches of epoch ``number`` from position ``start`` on; the same at every call."""
        ...


# As pytree nodes they pass through torch.compile, DDP and torch.func as the tensors they hold.
pytree.register_dataclass(Signals)
pytree.register_pytree_node(
    Batch,
    lambda batch: ([getattr(batch, name) for name in _TENSORS], (batch.copies, batch.mixed)),
    lambda tensors, views: Batch(**dict(zip(_TENSORS, tensors, strict=True)), copies=views[0], mixed=views[1]),
)

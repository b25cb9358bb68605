"""All stages of the student against all of the teacher, weighted by attention: what AFD and RTK have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, check_choice, check_whole
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals

_KINDS = ("learned", "uniform", "diagonal")


class StagePairs(Objective):
    """Distances of the attention maps of all pairs of a student's and a teacher's stage, weighted.

    Each stage of the ``chooser``'s network divides a weight of 1 among the stages of the other: a subclass says how, from
    similarities, in :meth:`divide`.
    """

    chooser: ClassVar[str]
    needs = frozenset({"stages"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2

    fixed: Tensor | None

    def __init__(self, *, dim: int, attention: str, learn: bool = True) -> None:
        super().__init__()
        check_whole("dim", dim, low=1)
        check_choice("attention", attention, _KINDS)
        self.dim, self.attention, self._learn = dim, attention, learn
        if attention != "learned":  # there are no heads, and so no batch norm
            self.batch_coupled = self.local_negatives = False
            self.minimum_batch = 1
        self.zero_when_equal = attention == "diagonal"
        self.heads: StageSimilarity | None = None
        self.seen: MeanAttention | None = None
        self.register_buffer("fixed", None, persistent=False)

    def divide(self, similarities: Tensor) -> Tensor:
        """(B, n, m) weights of the m stages for each of the n that choose, from similarities (B, n, m)."""
        raise SettingError(f"{type(self).__name__} defines no divide(similarities).")

    def build(self, student: Signals, teacher: Signals) -> None:
        choosing, chosen = self._ordered(list(student.features.values()), list(teacher.features.values()))
        # Among one stage there is no choice: its weight is 1 whatever heads say, and they would never learn.
        if self.attention == "learned" and len(chosen) > 1:
            self.heads = StageSimilarity(_channels(choosing), _channels(chosen), self.dim)
            self.seen = MeanAttention(list(student.features), list(teacher.features))
            if not self._learn:
                _freeze(self.heads)
        else:
            by_depth = self.attention == "diagonal"
            weights = _nearest(len(choosing), len(chosen)) if by_depth else _even(len(choosing), len(chosen))
            self.fixed = self._by_pair(weights)
        self.to(choosing[0].device)

    def start_epoch(self, epoch: int) -> None:
        if self.seen is not None:
            self.seen.start_epoch(epoch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = list(student.features.values()), list(teacher.features.values())
        weighted = self._weights(ours, theirs) * losses.attention_distances(ours, theirs)
        return {self.name: losses.mean(weighted.sum(dim=(1, 2)), weight=batch.weight)}

    def monitors(self) -> dict[str, Tensor]:
        return {} if self.seen is None else self.seen.means()

    def _weights(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """(B, S, T) weights of the pairs, or (S, T) where they are the same for all samples."""
        if self.fixed is not None:
            return self.fixed
        if self.heads is None or self.seen is None:
            raise SettingError(
                f"{self.name} has no heads yet: call build(student, teacher) before you create the optimizer."
            )
        weights = self._by_pair(self.divide(self.heads(*self._ordered(ours, theirs))))
        self.seen.add(weights)
        return weights if self._learn else weights.detach()

    def _ordered(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The maps of the network that chooses, and those that it chooses from."""
        return (ours, theirs) if self.chooser == "student" else (theirs, ours)

    def _by_pair(self, weights: Tensor) -> Tensor:
        """Weights (…, n, m) as (…, S, T)."""
        return weights if self.chooser == "student" else weights.mT


class StageSimilarity(nn.Module):
    """(B, n, m) similarities of n stages that ask and m that answer, from their mean values over the positions.

    A query is BN(W x) of ``dim`` numbers. A key is ReLU(BN(W x)) passed through one more linear layer and batch norm, which
    give it another form for each stage that asks. To the product of query and key comes that of two learned vectors which
    stand for the places of the two stages; the sum is divided by √dim. Computed in float32.
    """

    def __init__(self, queries: Sequence[int], keys: Sequence[int], dim: int) -> None:
        """``queries``, ``keys``: the stages' numbers of channels."""
        super().__init__()
        self.dim = dim
        # Before a batch norm a bias has no effect.
        self.queries = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, dim, bias=False), nn.BatchNorm1d(dim)) for channels in queries
        )
        self.keys = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU()) for channels in keys
        )
        self.forms = nn.Sequential(nn.Linear(dim, dim * len(queries), bias=False), nn.BatchNorm1d(dim * len(queries)))
        # It would add the same to all keys of a query, which a softmax over them takes away again.
        self.forms[1].register_parameter("bias", None)
        self.query_places = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(queries), dim)))
        self.key_places = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(keys), dim)))

    def forward(self, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        asked = torch.stack([_read(maps, head) for maps, head in zip(queries, self.queries, strict=True)], dim=1)
        answers = torch.stack([_read(maps, head) for maps, head in zip(keys, self.keys, strict=True)], dim=1)
        return self._similarities(asked, answers)

    @losses.in_float32
    def _similarities(self, asked: Tensor, answers: Tensor) -> Tensor:
        forms = self.forms(answers.flatten(0, 1)).unflatten(0, answers.shape[:2]).unflatten(2, (-1, self.dim))
        products = torch.einsum("bqd,bkqd->bqk", asked, forms)
        return (products + self.query_places @ self.key_places.T) / math.sqrt(self.dim)


@losses.in_float32
def _read(maps: Tensor, head: nn.Module) -> Tensor:
    rows: Tensor = head(maps.mean(dim=(2, 3)))
    return rows


class MeanAttention(nn.Module):
    """Mean weight of each pair over the samples since the epoch began; it stays on the device until somebody asks.

    Among several processes it is over the samples of one.
    """

    total: Tensor
    count: Tensor
    epoch: Tensor

    def __init__(self, student: Sequence[str], teacher: Sequence[str]) -> None:
        """``student``, ``teacher``: the stages' names."""
        super().__init__()
        self.names = [f"attention.{_plain(one)}.{_plain(other)}" for one in student for other in teacher]
        self.register_buffer("total", torch.zeros(len(student), len(teacher)))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def start_epoch(self, epoch: int) -> None:
        # An epoch that goes on after a stop keeps what it had.
        if int(self.epoch) != epoch:
            self.total.zero_()
            self.count.zero_()
            self.epoch.fill_(epoch)

    def add(self, weights: Tensor) -> None:
        """Take in the (B, S, T) weights of a batch."""
        self.total += weights.detach().sum(dim=0)
        self.count += len(weights)

    def means(self) -> dict[str, Tensor]:
        """Scalars by ``attention.STUDENT.TEACHER``, with a slash for each dot in a stage's name."""
        return dict(zip(self.names, (self.total / self.count.clamp(min=1)).flatten().unbind(), strict=True))


def _plain(stage: str) -> str:
    return stage.replace(".", "/")


def _channels(maps: Sequence[Tensor]) -> list[int]:
    return [each.shape[1] for each in maps]


def _even(choosing: int, chosen: int) -> Tensor:
    return torch.full((choosing, chosen), 1 / chosen)


def _nearest(choosing: int, chosen: int) -> Tensor:
    """(n, m) weight 1 for the stage that ends at the nearest share of its network's depth, the deeper of two as near."""
    weights = torch.zeros(choosing, chosen)
    for row in range(choosing):
        # Stage i of n ends at (i + 1) / n; times n·m the distances are whole numbers.
        weights[
            row, min(range(chosen), key=lambda column: (abs((row + 1) * chosen - (column + 1) * choosing), -column))
        ] = 1
    return weights


def _freeze(module: nn.Module) -> None:
    """Make buffers of the parameters: they are saved, and no optimizer and no gradient knows of them."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())

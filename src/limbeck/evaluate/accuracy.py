"""How often a classifier is right, and how well it agrees with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from limbeck import losses
from limbeck.distributed import world_size
from limbeck.errors import NonFiniteError
from limbeck.evaluate.kinds import Count, Number, Share
from limbeck.signals import IGNORED, Batch, not_finite

Predict = Callable[[Batch], Tensor]

_FIGURES = 7
_ROWS = 4096
_NUMBERS = 2**24  # float32 logits of token models that are looked at together


@dataclass(frozen=True)
class Score:
    """Figures of one classifier on one split.

    count: samples; of token models the positions that have a label.
    accuracy, top5: shares in [0, 1] (top5 is 1 by definition with five classes or fewer). nll: mean negative log likelihood
    in nats. agreement, kl: with a teacher, the share of equal predictions and the mean KL(teacher ‖ student) in nats.
    """

    count: Count
    accuracy: Share
    top5: Share
    nll: Number
    agreement: Share | None = None
    kl: Number | None = None

    def as_dict(self) -> dict[str, float]:
        """The figures that are present."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def score(predict: Predict, batches: Iterable[Batch], teacher: Predict | None = None) -> Score:
    """Score logits from ``predict`` on batches, summed over all processes (each has its own share of the batches).

    ``predict`` and ``teacher`` map a Batch to logits (B, C), or (B, L, V) of token models, whose positions then are the
    samples.

    Raises:
        NonFiniteError: logits that are NaN or infinite, with how many samples have them.
    """
    (found,) = scores([predict], batches, teacher)
    if isinstance(found, NonFiniteError):
        raise found
    return found


@torch.no_grad()
def scores(
    predicts: Sequence[Predict], batches: Iterable[Batch], teacher: Predict | None = None
) -> list[Score | NonFiniteError]:
    """:func:`score` of several classifiers in one pass, with the error in the place of a score that cannot be."""
    sums = [torch.zeros(_FIGURES, dtype=torch.float64) for _ in predicts]
    for batch in batches:
        told = None if teacher is None else teacher(batch)
        for number, predict in enumerate(predicts):
            row = _sums_of(predict(batch), batch.labels, told, batch.without_score)
            sums[number] = row + sums[number].to(row)
    return [_score(each, teacher is not None) for each in sums]


def score_of(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Score:
    """:func:`score` of logits (N, C) that are known already, of this process alone; ``teacher`` are its logits (N, C).

    Raises:
        NonFiniteError: as :func:`score`.
    """
    sums = torch.zeros(_FIGURES, dtype=torch.float64)
    for rows in torch.arange(len(labels)).split(_ROWS):
        row = _sums(logits[rows], labels[rows], None if teacher is None else teacher[rows])
        sums += row.to(sums)
    found = _score_of_sums(sums, teacher is not None)
    if isinstance(found, NonFiniteError):
        raise found
    return found


def _sums_of(logits: Tensor, labels: Tensor, teacher: Tensor | None, excluded: Tensor | None) -> Tensor:
    """The sums of a batch; of token models over the positions that have a label, a part at a time."""
    if logits.ndim == 2:
        return _sums(logits.float(), labels, None if teacher is None else teacher.float(), excluded)
    places = (labels.to(logits.device).flatten() != IGNORED).nonzero().flatten()
    flat = [None if each is None else each.flatten(0, 1) for each in (logits, teacher)]
    labels = labels.to(logits.device).flatten()
    found = []
    for part in places.split(max(1, _NUMBERS // logits.shape[-1])):
        ours, theirs = (None if each is None else each[part].float() for each in flat)
        assert ours is not None
        found.append(_sums(ours, labels[part], theirs))
    return torch.stack(found).sum(dim=0) if found else torch.zeros(_FIGURES, dtype=torch.float64)


def _score(sums: Tensor, with_teacher: bool) -> Score | NonFiniteError:
    if world_size() > 1:
        dist.all_reduce(sums)
    return _score_of_sums(sums, with_teacher)


def _score_of_sums(sums: Tensor, with_teacher: bool) -> Score | NonFiniteError:
    count, top1, top5, nll, agreement, kl, bad = sums.tolist()
    if bad:
        return NonFiniteError(f"the network's logits are NaN or infinite for {int(bad)} of {int(count)} predictions.")
    count = max(1, count)
    beside = (agreement / count, kl / count) if with_teacher else (None, None)
    return Score(int(count), top1 / count, top5 / count, nll / count, *beside)


def _sums(logits: Tensor, labels: Tensor, teacher: Tensor | None, excluded: Tensor | None = None) -> Tensor:
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = top == labels[:, None]
    zero = logits.new_zeros(())
    values = [
        torch.full_like(zero, len(labels)),
        right[:, 0].sum(),
        right.any(dim=1).sum(),
        losses.cross_entropy(logits, labels).sum(),
        zero if teacher is None else (teacher.argmax(dim=1) == top[:, 0]).sum(),
        zero if teacher is None else losses.kl_divergence(logits, teacher).sum(),
        not_finite(logits, excluded).any(dim=1).sum(),
    ]
    # float32 where the device has no float64 (mps); sums of counts stay exact below 16 million.
    kind = torch.float32 if logits.device.type == "mps" else torch.float64
    return torch.stack([value.to(kind) for value in values])

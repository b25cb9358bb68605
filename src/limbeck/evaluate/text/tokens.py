"""Figures of next-token predictions: perplexity, and how far a student is from its teacher at each token."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from limbeck import losses
from limbeck.distributed import world_size
from limbeck.errors import DataError, NonFiniteError, SignalError
from limbeck.signals import IGNORED

_FIGURES = 7
_POSITIONS = 512


@dataclass(frozen=True)
class TokenScore:
    """Figures over ``tokens`` predicted tokens, each of the same weight whatever its example.

    nll: mean negative log likelihood in nats. perplexity: exp of it, over all tokens and not a mean of the examples'.
    accuracy: share of tokens that are the most likely one. With a teacher: agreement, the share of tokens where both find
    the same one most likely, and kl and reverse_kl, the means of KL(teacher ‖ student) and KL(student ‖ teacher) in nats.
    """

    tokens: int
    nll: float
    perplexity: float
    accuracy: float
    agreement: float | None = None
    kl: float | None = None
    reverse_kl: float | None = None

    def as_dict(self) -> dict[str, float]:
        """The figures that are present."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class TokenScorer:
    """Adds up what batches give. Sums stay on the device of the logits, in float64 where it has that.

    with_teacher: whether every batch comes with the teacher's logits.
    """

    def __init__(self, *, with_teacher: bool = False) -> None:
        self._with_teacher = with_teacher
        self._sums = torch.zeros(_FIGURES, dtype=torch.float64)

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> None:
        """Add a batch.

        logits, teacher: (B, L, V), of the next token at each position. labels: (B, L) int64 that token, -100 where it does
        not count. Float32 copies are made of 512 positions at a time.

        Raises:
            SignalError: logits of teacher or labels that do not fit, or a teacher too many or missing.
        """
        self._check(logits, labels, teacher)
        places = (labels.flatten() != IGNORED).nonzero().flatten()
        ours, wanted = logits.flatten(0, 1), labels.flatten()
        theirs = None if teacher is None else teacher.flatten(0, 1)
        for part in places.split(_POSITIONS):
            row = _sums(ours[part].float(), wanted[part], None if theirs is None else theirs[part].float())
            self._sums = row + self._sums.to(row)

    def _check(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> None:
        if logits.shape[:-1] != labels.shape:
            raise SignalError(
                f"logits must be (B, L, V) with labels (B, L), got {tuple(logits.shape)} and {tuple(labels.shape)}."
            )
        if (teacher is not None) is not self._with_teacher:
            raise SignalError(
                "either every batch comes with the teacher's logits or none; set with_teacher accordingly."
            )
        if teacher is not None and teacher.shape != logits.shape:
            raise SignalError(
                f"student and teacher must have logits of the same tokens, got {tuple(logits.shape)} and "
                f"{tuple(teacher.shape)}; with another vocabulary, agreement and KL have no meaning."
            )

    def score(self) -> TokenScore:
        """The figures over all that was added, in all processes together, each of which must ask.

        Raises:
            DataError: no token counted.
            NonFiniteError: logits were NaN or infinite (-inf, as of tokens that are ruled out, is neither here).
        """
        sums = self._sums.clone()
        if world_size() > 1:
            dist.all_reduce(sums)
        tokens, bad, *figures = sums.tolist()
        if not tokens:
            raise DataError("no token counts in what was scored: every label is -100.")
        if bad:
            raise NonFiniteError(f"the network's logits are NaN or infinite for {int(bad)} of {int(tokens)} tokens.")
        nll, accuracy, *beside = (figure / tokens for figure in figures)
        perplexity = math.exp(nll) if nll < math.log(torch.finfo(torch.float64).max) else math.inf
        return TokenScore(int(tokens), nll, perplexity, accuracy, *(beside if self._with_teacher else ()))


def _sums(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    top = logits.argmax(dim=1)
    zero = logits.new_zeros(())
    bad = logits.isnan() | logits.isposinf()
    values = [
        torch.full_like(zero, len(labels)),
        bad.any(dim=1).sum(),
        losses.cross_entropy(logits, labels).sum(),
        (top == labels).sum(),
        zero if teacher is None else (teacher.argmax(dim=1) == top).sum(),
        zero if teacher is None else losses.kl_divergence(logits, teacher).sum(),
        zero if teacher is None else losses.kl_divergence(teacher, logits).sum(),
    ]
    kind = torch.float32 if logits.device.type == "mps" else torch.float64
    return torch.stack([value.to(kind) for value in values])

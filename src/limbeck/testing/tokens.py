"""The checks of the contract for token models: what is masked, and the mean over the positions that count."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from limbeck.objectives import Objective
from limbeck.signals import IGNORED, Batch, Signals
from limbeck.testing.samples import BATCH, learning, peers_of, per_position_parts, rows_of, sample_tokens, terms_of

SignalsOrBatch = TypeVar("SignalsOrBatch", Signals, Batch)


def check_mask(expression: str) -> None:
    """Objectives for token models: masked positions have no effect and get no gradient, whatever stands there, NaN too.

    Nor does it matter on which side of a sample they are.
    """
    for part in per_position_parts(expression):
        student, teacher, batch = sample_tokens(peers=peers_of(part))
        expected, gradients = _of_tokens(part, student, teacher, batch)
        mask = student.mask
        assert mask is not None
        assert (gradients[~mask] == 0).all(), f"{part}: masked positions get a gradient"
        for filler in (1e4, torch.nan):
            value, found = _of_tokens(part, _garbled(student, filler), _garbled(teacher, filler), batch)
            assert torch.equal(value, expected), f"{part}: masked positions change the loss"
            assert torch.equal(found, gradients), f"{part}: masked positions change the gradient"
        value, found = _of_tokens(part, _turned(student), _turned(teacher), _turned(batch))
        same = torch.allclose(value, expected, rtol=1e-5) and torch.allclose(found.flip(1), gradients, atol=1e-6)
        assert same, f"{part}: padding on the left and on the right differ"


def check_tokens(expression: str) -> None:
    """Objectives for token models: the mean over the positions that count.

    Parts of a batch, weighed by the share of its positions that they hold, add up to the whole; in bfloat16 the loss is a
    finite float32 number with finite gradients.
    """
    for part in per_position_parts(expression):
        student, teacher, batch = sample_tokens(peers=peers_of(part))
        value, gradients = _of_tokens(part, student.map(Tensor.bfloat16), teacher.map(Tensor.bfloat16), batch)
        assert value.dtype == torch.float32, f"{part}: the loss of bfloat16 logits is {value.dtype}, not float32"
        finite = bool(value.isfinite()) and bool(gradients.isfinite().all())
        assert finite, f"{part}: bfloat16 logits give NaN or an infinite number"
        student, teacher, batch = sample_tokens(torch.float64, peers=peers_of(part))
        whole = terms_of(part, student, teacher, batch)
        total = {term: torch.zeros_like(value) for term, value in whole.items()}
        for some in (slice(0, 3), slice(3, BATCH)):
            ours, theirs = (replace(rows_of(s, some), mask=_mask_of(s)[some]) for s in (student, teacher))
            share = (batch.labels[some] != IGNORED).sum() / (batch.labels != IGNORED).sum()
            for term, value in terms_of(part, ours, theirs, batch[some]).items():
                total[term] += share.double() * value
        equal = all(torch.allclose(total[term], value, rtol=1e-6) for term, value in whole.items())
        assert equal != part.batch_coupled, (
            f"{part}: parts of a batch of tokens {'add' if equal else 'do not add'} up to the whole, and batch_coupled is "
            f"{part.batch_coupled}"
        )


def _of_tokens(part: Objective, student: Signals, teacher: Signals, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the logits of the student and of the networks beside it, (B, L, …)."""
    student = learning(student)
    loss = torch.stack(list(terms_of(part, student, teacher, batch).values())).sum()
    loss.backward()
    assert student.logits is not None
    assert student.logits.grad is not None
    if student.peers is None:
        return loss.detach(), student.logits.grad
    assert student.peers.grad is not None
    return loss.detach(), torch.cat([student.logits.grad, *student.peers.grad.unbind(1)], dim=-1)


def _garbled(signals: Signals, filler: float) -> Signals:
    """With a number at the masked positions that has no place there."""
    mask = _mask_of(signals)[..., None]
    return signals.map(lambda value: value.where(mask if value.ndim == mask.ndim else mask[:, None], filler))


def _turned(what: SignalsOrBatch) -> SignalsOrBatch:
    """Every sample's positions from the last to the first."""
    if isinstance(what, Batch):
        return replace(what, labels=what.labels.flip(1))
    return replace(what.map(lambda value: value.flip(-2)), mask=_mask_of(what).flip(1))


def _mask_of(signals: Signals) -> Tensor:
    assert signals.mask is not None
    return signals.mask

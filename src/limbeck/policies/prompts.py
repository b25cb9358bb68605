"""What a policy is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from limbeck.errors import DataError, SettingError, check_whole


class Source(IntEnum):
    """Whose token it is."""

    NONE = 0
    DATA = 1
    STUDENT = 2
    TEACHER = 3


@dataclass(frozen=True)
class Prompts:
    """N prompts to be answered, and where answers end.

    Args:
        tokens: (N, P) int64 token ids, padded on the left.
        mask: (N, P) bool, True where there is a token; True in the last column.
        pad: token id that fills up answers. What stands in padded places of ``tokens`` is not read.
        end: token id at which an answer ends (it is part of the answer), or several of them.
        max_new_tokens: the most that is written; a row that reaches it without an end is cut off, and counted.
        rows: (N,) int64, which samples they are. They name each row's random numbers; None for 0 … N-1.
        completions: (N, L) int64, the data's own answers, padded on the right; None if there are none.
        completion_mask: (N, L) bool, True where there is a token of an answer.

    Raises:
        DataError: shapes that do not fit, an empty prompt or completion, padding in the wrong place (each with its rows).
        SettingError: a number out of its range.
    """

    tokens: Tensor
    mask: Tensor
    pad: int
    end: int | Sequence[int]
    max_new_tokens: int
    rows: Tensor | None = None
    completions: Tensor | None = None
    completion_mask: Tensor | None = None

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens, low=1)
        check_whole("the pad token id", self.pad, low=0)
        for token in self.ends:
            check_whole("the end-of-sequence token id", token, low=0)
        if not self.ends:
            raise SettingError("there is no end-of-sequence token id; without one no answer could end.")
        _check_table("prompts", self.tokens, self.mask)
        _check_rows("these prompts are empty", ~self.mask.any(-1))
        gaps = self.mask[:, :-1] & ~self.mask[:, 1:]
        _check_rows("these prompts are not padded on the left", gaps.any(-1) | ~self.mask[:, -1])
        if self.rows is not None and (self.rows.shape != (len(self),) or self.rows.dtype != torch.int64):
            raise DataError(f"rows must be int64 of shape ({len(self)},), got {_described(self.rows)}.")
        self._check_completions()

    def _check_completions(self) -> None:
        if self.completions is None and self.completion_mask is None:
            return
        if self.completions is None or self.completion_mask is None:
            raise DataError("completions and completion_mask are given together or not at all.")
        _check_table("completions", self.completions, self.completion_mask)
        if len(self.completions) != len(self):
            raise DataError(f"there are {len(self)} prompts and {len(self.completions)} completions.")
        _check_rows("these completions are empty", ~self.completion_mask.any(-1))
        gaps = ~self.completion_mask[:, :-1] & self.completion_mask[:, 1:]
        _check_rows("these completions are not padded on the right", gaps.any(-1) | ~self.completion_mask[:, 0])

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ends(self) -> tuple[int, ...]:
        """The end-of-sequence token ids."""
        return (self.end,) if isinstance(self.end, int) else tuple(self.end)

    @property
    def names(self) -> Tensor:
        """(N,) int64: ``rows``, or 0 … N-1."""
        return torch.arange(len(self)) if self.rows is None else self.rows

    def select(self, which: Tensor) -> Prompts:
        """Those at the places ``which`` (int64, at least one), without columns that only hold padding of others."""
        mask = self.mask[which]
        first = int(mask.any(0).int().argmax())
        return replace(
            self,
            tokens=self.tokens[which, first:],
            mask=mask[:, first:],
            rows=self.names[which.cpu()],
            completions=None if self.completions is None else self.completions[which],
            completion_mask=None if self.completion_mask is None else self.completion_mask[which],
        )


@dataclass(frozen=True)
class Statistics:
    """Counts of what was written. They add up over calls.

    rows: answers. tokens: of all answers. cut_off: answers that reached ``max_new_tokens`` without an end.
    proposed: tokens that the student proposed in blocks. accepted: those of them that were kept.
    corrections: tokens that the teacher put in the place of one that the student proposed.
    rounds: blocks, counted for each row. student_passes, teacher_passes: forward passes of a batch, those over prompts
    included.
    seconds: of wall time.
    """

    rows: int = 0
    tokens: int = 0
    cut_off: int = 0
    proposed: int = 0
    accepted: int = 0
    corrections: int = 0
    rounds: int = 0
    student_passes: int = 0
    teacher_passes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    @property
    def correction_rate(self) -> float:
        """Corrections by tokens: it must fall while the student learns."""
        return self.corrections / max(self.tokens, 1)

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that were kept, those after a correction counted as not kept."""
        return self.accepted / max(self.proposed, 1)

    @property
    def tokens_per_round(self) -> float:
        """E: how many tokens a row keeps of a block, a correction included."""
        return (self.accepted + self.corrections) / max(self.rounds, 1)

    @property
    def tokens_per_second(self) -> float:
        """Of all rows together."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Response:
    """N answers.

    tokens: (N, L) int64, padded on the right with the pad token; L is the longest answer's length.
    mask: (N, L) bool, True for each token of an answer, its end-of-sequence token included: these are the places of the loss.
    source: (N, L) int8, a :class:`Source` for each.
    statistics: what was counted.
    """

    tokens: Tensor
    mask: Tensor
    source: Tensor
    statistics: Statistics

    def __len__(self) -> int:
        return len(self.tokens)


def joined(parts: Sequence[tuple[Tensor, Response]], pad: int) -> Response:
    """One response of several, each with the (n,) places of its rows."""
    count, longest = sum(len(rows) for rows, _ in parts), max(response.tokens.shape[1] for _, response in parts)
    like = parts[0][1]
    tokens = like.tokens.new_full((count, longest), pad)
    mask, source = like.mask.new_zeros(count, longest), like.source.new_zeros(count, longest)
    for rows, response in parts:
        columns = response.tokens.shape[1]
        for whole, part in ((tokens, response.tokens), (mask, response.mask), (source, response.source)):
            whole[rows, :columns] = part
    return Response(tokens, mask, source, sum((response.statistics for _, response in parts), Statistics()))


def row_list(which: Tensor, names: Tensor | None = None) -> str:
    """The rows that a bool tensor (N,) marks, as text; the first eight of them."""
    places = which.nonzero().flatten().tolist()
    listed = [place if names is None else int(names[place]) for place in places]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"{'row' if len(listed) == 1 else 'rows'} {', '.join(map(str, listed[:8]))}{more}"


def _check_rows(what: str, wrong: Tensor) -> None:
    if bool(wrong.any()):
        raise DataError(f"{what}: {row_list(wrong)} of the batch.")


def _check_table(what: str, tokens: Tensor, mask: Tensor) -> None:
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or not tokens.numel():
        raise DataError(f"{what} must be int64 token ids of shape (rows, length), got {_described(tokens)}.")
    if mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise DataError(f"the mask of {what} must be bool of shape {tuple(tokens.shape)}, got {_described(mask)}.")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

"""The answers of a batch while they are written, each row at its own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.policies.prompts import Prompts, Response, Source, Statistics
from limbeck.policies.writer import Writer

if TYPE_CHECKING:
    from limbeck.policies._cache import Context

# Masked slots cost attention in each pass; taking them out costs one copy of the cache.
_SPARE_SLOTS, _SPARE_SHARE = 16, 0.25


class Answers:
    """N answers, of which the rows that have not ended are the batch that the models see.

    Every model has read the same slots: all tokens of a row but its last one, ``pending``, which the next pass begins with.
    After a round each row keeps its own number of them. Slots that no row keeps are cut off; those that only some rows keep
    stay in the caches, masked, and are taken out when they are many. Nothing is ever read a second time.

    Attributes:
        active: (R,) int64, the rows that have not ended.
        pending: (R, 1) int64, the last token of each.
        written: (R,) int64, how many new tokens each has.
        contexts: of the models, in their order.
    """

    def __init__(self, prompts: Prompts, writers: Sequence[Writer]) -> None:
        from limbeck.policies._cache import Context

        self._prompts = prompts
        device, count, limit = prompts.tokens.device, len(prompts), prompts.max_new_tokens
        self._ends = torch.tensor(prompts.ends, device=device)
        self._tokens = torch.full((count, limit), prompts.pad, device=device)
        self._source = torch.zeros((count, limit), dtype=torch.int8, device=device)
        self._lengths = torch.zeros(count, dtype=torch.int64, device=device)
        self._cut_off = 0
        self.active = torch.arange(count, device=device)
        self.pending = prompts.tokens[:, -1:]
        self.written = torch.zeros(count, dtype=torch.int64, device=device)
        self._valid = prompts.mask[:, :-1]
        self._position = self._valid.sum(-1)
        self._limits = self._position + limit
        # The same lengths on the host, so that nothing has to be asked of the device.
        self._slots: list[int] = self._position.tolist()
        self._counts = [0] * count
        self.contexts: list[Context] = [Context(writer, prompts.tokens.shape[1] + min(limit, 64)) for writer in writers]
        self._tight = any(context.windowed for context in self.contexts)
        self._read_prompts()

    def _read_prompts(self) -> None:
        if self._valid.shape[1]:
            tokens = self._prompts.tokens[:, :-1].where(self._valid, self._prompts.pad)
            positions = (self._valid.cumsum(-1) - 1).clamp(min=0)
            for context in self.contexts:
                context.feed(tokens, self._mask(0), positions, keep=1)

    def __bool__(self) -> bool:
        """Whether there is a row to be written."""
        return len(self.active) > 0

    @property
    def room(self) -> int:
        """How many tokens the row may still get that has the fewest."""
        return self._prompts.max_new_tokens - min(self._counts)

    def _mask(self, new: int) -> Tensor | None:
        """(R, slots + new) which slots count, with ``new`` ones behind them; None where all do."""
        if min(self._slots) == self._valid.shape[1]:
            return None
        return torch.cat([self._valid, self._valid.new_ones(len(self._valid), new)], dim=1)

    def round_of(self, count: int) -> Round:
        """The places of the next ``count`` tokens of every row."""
        steps = torch.arange(count, device=self.pending.device)
        # A row may propose beyond its end while others go on; what it proposes there is dropped, but must have a place.
        positions = torch.minimum(self._position[:, None] + steps, self._limits[:, None])
        return Round(positions, self._mask(count), self._valid.shape[1])

    def uniforms(self, table: Tensor, count: int) -> Tensor:
        """(R, count) of a table (N, max_new_tokens): the numbers of each row's next positions."""
        steps = torch.arange(count, device=self.pending.device)
        places = (self.written[:, None] + steps).clamp(max=table.shape[1] - 1)
        return table[self.active].gather(1, places)

    def until_end(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """(R,) how many of ``tokens`` (R, n) count: at most ``kept``, up to the end of sequence and to the limit."""
        ended = self._is_end(tokens).cumsum(-1)
        before = (ended == 0).sum(-1) + 1
        return torch.minimum(torch.minimum(kept, before), self._prompts.max_new_tokens - self.written)

    def _is_end(self, tokens: Tensor) -> Tensor:
        return (tokens[..., None] == self._ends).any(-1)

    def keep(self, tokens: Tensor, kept: Tensor, source: Tensor) -> None:
        """Each row keeps the first ``kept`` (R,), at least one, of ``tokens`` (R, n); all models have read n slots.

        Args:
            source: (R, n) int8, whose they are.
        """
        count = tokens.shape[1]
        steps = torch.arange(count, device=tokens.device)
        inside = steps < kept[:, None]
        rows, columns = inside.nonzero(as_tuple=True)
        places = (self.active[rows], self.written[rows] + columns)
        self._tokens[places], self._source[places] = tokens[rows, columns], source[rows, columns]
        last = tokens.gather(1, kept[:, None] - 1)
        self.pending, self.written, self._position = last, self.written + kept, self._position + kept
        self._lengths[self.active] = self.written
        ended = self._is_end(last.squeeze(1))
        full = self.written >= self._prompts.max_new_tokens
        numbers, done, cut = torch.stack([kept, (ended | full).long(), (full & ~ended).long()]).tolist()
        self._cut_off += sum(cut)
        self._roll_back(inside, numbers, done)

    def _roll_back(self, inside: Tensor, numbers: list[int], done: list[int]) -> None:
        """Forget what was not kept, and the rows that ended."""
        most = max(numbers)
        if most < inside.shape[1]:
            for context in self.contexts:
                context.forget(inside.shape[1] - most)
        self._valid = torch.cat([self._valid, inside[:, :most]], dim=1)
        self._slots = [slots + number for slots, number in zip(self._slots, numbers, strict=True)]
        self._counts = [written + number for written, number in zip(self._counts, numbers, strict=True)]
        going = [place for place, over in enumerate(done) if not over]
        rows = None if len(going) == len(done) else torch.tensor(going, dtype=torch.int64, device=inside.device)
        if rows is not None:
            self.active, self.pending, self.written = self.active[rows], self.pending[rows], self.written[rows]
            self._position, self._limits, self._valid = self._position[rows], self._limits[rows], self._valid[rows]
            self._slots, self._counts = ([each[place] for place in going] for each in (self._slots, self._counts))
        slots = self._without_gaps(len(set(numbers)) > 1) if going else None
        if going and (rows is not None or slots is not None):
            for context in self.contexts:
                context.keep(rows, slots)

    def _without_gaps(self, ragged: bool) -> Tensor | None:
        """(R, C) the slots that count, moved to the right, once it is worth while; None to leave them as they are."""
        columns, longest = self._valid.shape[1], max(self._slots)
        spare = columns - longest
        if not (self._tight and ragged) and spare <= _SPARE_SLOTS + _SPARE_SHARE * longest:
            return None
        order = self._valid.int().argsort(dim=1, stable=True)[:, spare:]
        self._valid = self._valid.gather(1, order)
        return order

    def finish(self, counted: Statistics) -> Response:
        """The answers, with what was ``counted`` beside what is known here."""
        lengths = self._lengths.tolist()
        longest = max(lengths)
        tokens, source = self._tokens[:, :longest], self._source[:, :longest]
        known = Statistics(rows=len(lengths), tokens=sum(lengths), cut_off=self._cut_off)
        return Response(tokens, source != Source.NONE, source, counted + known)


class Round:
    """Where the next tokens of a batch go.

    positions: (R, n) int64. mask: (R, slots + n) bool, or None where all slots count. before: how many slots there are.
    """

    def __init__(self, positions: Tensor, mask: Tensor | None, before: int) -> None:
        self.positions, self.mask, self.before = positions, mask, before

    def feed(self, context: Context, tokens: Tensor, first: int = 0) -> Tensor:
        """The logits (R, n, V) of a pass over ``tokens`` (R, n), the first of which is the round's ``first``."""
        last = first + tokens.shape[1]
        mask = None if self.mask is None else self.mask[:, : self.before + last]
        return context.feed(tokens, mask, self.positions[:, first:last], keep=tokens.shape[1])

"""A teacher's answers at every position of fixed texts that is learnt, each an entry as a sample is of other data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from limbeck.data.slots import Slots
from limbeck.errors import CacheError
from limbeck.signals import Batch, Signals
from limbeck.teachers.cache import TeacherCache
from limbeck.teachers.cached import CacheReader, check_held

AS_THEY_ARE = Slots(torch.zeros(1, 1, dtype=torch.int64), "texts as they are")
"""Each text, and each of its positions, is seen in one way."""


@dataclass(frozen=True)
class TokenPlaces:
    """The M positions of N texts that are learnt, one text after the other: entry ``starts[i] + k`` is the k-th of text i.

    first: (N,) int64, the first position of each text that is learnt. counts: (N,) int64, how many are, in a row.
    index: (N,) int64, ``Batch.index`` of each text.
    """

    first: Tensor
    counts: Tensor
    index: Tensor

    @classmethod
    def of_rows(cls, lengths: Tensor, prompts: Tensor, index: Tensor) -> TokenPlaces:
        """Of texts of ``lengths`` (N,) tokens, of which the first ``prompts`` (N,) are given: the last of them predicts."""
        first = (prompts - 1).clamp(min=0)
        return cls(first, lengths - 1 - first, index)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def starts(self) -> Tensor:
        """(N,) int64, the entry of each text's first position."""
        return self.counts.cumsum(0) - self.counts

    def of_entries(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """The text and the position in it of ``entries``, all int64 (n,)."""
        texts = torch.searchsorted(self.counts.cumsum(0), entries, right=True)
        return texts, self.first[texts] + entries - self.starts[texts]


@dataclass(frozen=True)
class Asked:
    """The inputs of a batch of n positions: the texts that hold them, and where they are, ``rows`` and ``columns`` (n,)."""

    texts: Batch
    rows: Tensor
    columns: Tensor

    def to_signals(self, said: Signals) -> Signals:
        """Logits (n, V) of the positions, from those (B, L, V) of the texts."""
        assert said.logits is not None
        return Signals(logits=said.logits[self.rows.to(said.logits.device), self.columns.to(said.logits.device)])


@dataclass(frozen=True)
class PositionBatches:
    """Batches of positions, as ``SlotBatches`` are of samples, each seen in one way.

    collate: a batch of texts from their places, a list of one each.
    """

    places: TokenPlaces
    collate: Callable[[list[list[int]]], Batch]
    device: torch.device

    slots: ClassVar[Slots] = AS_THEY_ARE

    def at(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """The batches of chosen (entries, slots), whose inputs are :class:`Asked`; a text that holds several is seen once."""
        for entries, _ in parts:
            texts, columns = self.places.of_entries(entries)
            chosen, rows = texts.unique(return_inverse=True)
            batch = self.collate([[text] for text in chosen.tolist()]).to(self.device)
            yield Batch(Asked(batch, rows, columns), torch.zeros_like(entries), entries)


@dataclass(frozen=True)
class TextBatches:
    """Batches of whole texts, each seen in one way; ``collate`` as in :class:`PositionBatches`."""

    collate: Callable[[list[list[int]]], Batch]
    device: torch.device

    slots: ClassVar[Slots] = AS_THEY_ARE

    def at(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """The batches of the texts at chosen (positions, slots)."""
        for positions, _ in parts:
            yield self.collate([[position] for position in positions.tolist()]).to(self.device)


class CachedTokenTeacher:
    """A ``Teacher`` whose logits at each position of fixed texts were computed before: float32 (B, L, V).

    Where nothing is learnt they are 0. Packed rows are read as well: who sees whom does not depend on what shares a row.

    cache: opened for the identity of this run. places: of the texts that it is of. device: where the batches are.

    Raises CacheError when the cache is of other texts.
    """

    sees_inputs = False

    def __init__(self, cache: TeacherCache, places: TokenPlaces, device: torch.device | str = "cpu") -> None:
        self.cache, self._reader = cache, CacheReader(cache, torch.device(device))
        if cache.layout.samples != len(places):
            raise CacheError(
                f"the teacher cache {cache.folder} holds {cache.layout.samples:,} positions, and the texts have "
                f"{len(places):,}."
            )
        texts = torch.full((int(places.index.max()) + 1,), -1)
        texts[places.index] = torch.arange(len(places.index))
        self._texts = texts.to(device)
        # The entry of a text's position 0, were it learnt.
        self._zero = (places.starts - places.first).to(device)

    def require(self, needs: Iterable[str]) -> None:
        """Raise CacheError unless the cache holds what an objective needs of a teacher (``Objective.needs``)."""
        check_held(self.cache, needs)

    def signals(self, inputs: Any, batch: Batch) -> Signals:
        """The stored logits of the batch's texts.

        Raises CacheError when a text of the batch is not in the cache.
        """
        learnt = batch.learnt
        told = self._reader.signals(self._entries(batch, learnt)).logits
        assert told is not None
        logits = told.new_zeros(*learnt.shape, told.shape[-1])
        logits[learnt] = told
        return Signals(logits=logits)

    def _entries(self, batch: Batch, learnt: Tensor) -> Tensor:
        """(n,) int64, the entry of each position that is learnt."""
        tokens, index = batch.inputs, batch.index
        assert index is not None
        # Packed rows tell for each position which of their texts it is of.
        of_position = (
            index[:, None].expand(learnt.shape) if index.ndim == 1 else index.gather(1, tokens.documents.clamp(min=0))
        )
        names = of_position[learnt]
        texts = self._texts[names.clamp(0, len(self._texts) - 1)]
        if bool(((texts < 0) | (names >= len(self._texts))).any()):
            raise CacheError(
                f"the teacher cache {self.cache.folder} does not hold every text of the batch; it was written for others."
            )
        positions: Tensor = tokens.positions
        return self._zero[texts] + positions[learnt]

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """All epochs are the same."""

    def check(self) -> None:
        """Nothing is left to say."""

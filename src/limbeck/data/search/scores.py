"""A teacher's scores of queries and documents, kept in a file so that none is computed twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from limbeck.errors import CacheError
from limbeck.files import atomic_path

Score = Callable[[Tensor, Tensor], Tensor]
"""From places of queries (P,) and of documents (P,) to scores (P,)."""

_SPAN = 2**31


class ScoreCache:
    """Scores of pairs of a query and a document by their places, in one safetensors file.

    path: the file; it is read where it exists, and written whole or not at all; None keeps them in memory alone. write:
    whether new scores are written, as one of several processes does. facts: what the scores depend on, such as the
    teacher's digest, its tokenizer, where texts are cut, the prompts (``Tokenising.facts``) and the digest of the collection.

    Raises CacheError where the file is damaged, or was made with other facts: the sentence names the first that differs.
    """

    def __init__(self, path: str | os.PathLike[str] | None, facts: Mapping[str, str], *, write: bool = True) -> None:
        self._writes = write
        self._path, self._facts = None if path is None else Path(path), dict(facts)
        self._keys = torch.zeros(0, dtype=torch.int64)
        self._scores = torch.zeros(0)
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def __len__(self) -> int:
        """How many pairs are known."""
        return len(self._keys)

    def scores(self, queries: Tensor, documents: Tensor, compute: Score) -> Tensor:
        """float32 scores of pairs, by places of queries and documents, int64 of one shape; others than known are computed.

        ``compute`` is asked once, for all that are missing, each pair once; then the file is written.

        Raises:
            CacheError: ``compute`` gives another number of scores, or one that is not finite.
        """
        keys = queries * _SPAN + documents
        wanted = keys.unique()
        missing = wanted[~self._knows(wanted)]
        if len(missing):
            self._add(missing, compute(missing // _SPAN, missing % _SPAN).float().cpu())
        return self._scores[torch.searchsorted(self._keys, keys.contiguous())]

    def count(self, queries: Tensor, documents: Tensor) -> tuple[int, int]:
        """How many pairs these are, a pair that comes again not counted, and how many of them are known."""
        wanted = (queries * _SPAN + documents).unique()
        return len(wanted), int(self._knows(wanted).sum())

    def _knows(self, keys: Tensor) -> Tensor:
        # Not torch.isin, which sorts all that is known at every call.
        if not len(self._keys):
            return torch.zeros_like(keys, dtype=torch.bool)
        places = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        return self._keys[places] == keys

    def _add(self, keys: Tensor, scores: Tensor) -> None:
        if scores.shape != keys.shape or not scores.isfinite().all():
            raise CacheError(
                f"'{self._path or 'scores'}': a finite score is needed for each of {len(keys)} pairs; the teacher gave a "
                f"tensor of shape {tuple(scores.shape)}"
                f"{'' if scores.isfinite().all() else ' with numbers that are not finite'}."
            )
        order = torch.cat([self._keys, keys]).argsort()
        self._keys, self._scores = torch.cat([self._keys, keys])[order], torch.cat([self._scores, scores])[order]
        if self._path is not None and self._writes:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        from safetensors.torch import save_file

        with atomic_path(path) as temporary:
            save_file({"keys": self._keys, "scores": self._scores}, temporary, metadata=self._facts)

    def _read(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                facts = dict(file.metadata() or {})
                keys, scores = file.get_tensor("keys"), file.get_tensor("scores")
        except (SafetensorError, OSError) as error:
            raise CacheError(
                f"'{path}' is no file of scores, or damaged ({error}); remove it to begin anew."
            ) from error
        for name in {**facts, **self._facts}:
            if facts.get(name) != self._facts.get(name):
                raise CacheError(
                    f"'{path}' holds scores made with {name} {facts.get(name)!r}, and {self._facts.get(name)!r} is asked "
                    f"for: scores would be of other texts or another teacher. Give another file."
                )
        if keys.shape != scores.shape or keys.ndim != 1 or (keys.diff() <= 0).any():
            raise CacheError(f"'{path}' is damaged: its keys and scores do not fit; remove it to begin anew.")
        self._keys, self._scores = keys, scores

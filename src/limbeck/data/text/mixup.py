"""Views of texts in which two are mixed: mixup of word embeddings (MixKD, arXiv 2011.00593)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from limbeck.data.seeds import stream
from limbeck.data.views import Views, beta_shares
from limbeck.errors import SettingError
from limbeck.signals import Batch
from limbeck.tokens import Tokens

_STREAM = 0x4D6978
_LEAST = 2.0**-16


class Drawn(NamedTuple):
    """For each of N rows of a batch ``other`` (N,) int64, what row it is mixed with, and ``share`` (N,) float32, its part."""

    other: Tensor
    share: Tensor


@dataclass(frozen=True)
class TextViews:
    """Each text of a batch in one view of each of these, side by side: as it is, or mixed with another of its batch.

    views: of which texts know ``mixup`` alone: λ is of Beta(a, a), 256 values at its evenly spread quantiles, drawn for each
        text; the greatest is made 1. The other text is any of the global batch, in which lengths are similar, each of
        them once.

    Raises:
        SettingError: a view does something else to a text.
    """

    views: tuple[Views, ...]

    def __post_init__(self) -> None:
        for each in self.views:
            if each != Views(mixup=each.mixup):
                raise SettingError(
                    f"augment: texts are seen as they are or with mixup, as in 'none | mixup=0.4'; got '{each}'."
                )

    @property
    def mixed(self) -> tuple[bool, ...]:
        """For each view whether it mixes; empty where none does."""
        found = tuple(each.mixes for each in self.views)
        return found if any(found) else ()

    def draw(self, rows: int, seed: int, epoch: int, position: int) -> list[Drawn | None]:
        """For each view what the rows of a global batch are mixed with, None for a view that does not mix.

        It depends on the arguments alone.
        """
        generator = stream(_STREAM, seed, epoch, position)
        return [_drawn(each.mixup, rows, generator) if each.mixes else None for each in self.views]


def _drawn(concentration: float, rows: int, generator: torch.Generator) -> Drawn:
    # At least a little of each text is there, so that its places are known by its share.
    shares = beta_shares(concentration, torch.device("cpu")).float().clamp(min=_LEAST)
    other = torch.randperm(rows, generator=generator)
    return Drawn(other, shares[torch.randint(len(shares), (rows,), generator=generator)])


def side_by_side(plain: Batch, mixed: Sequence[tuple[Batch, Tensor] | None], pad: int) -> Batch:
    """A batch of N texts in several views: for each the other texts (N rows) with the shares (N,) of the first, or None.

    Rows are filled up on the right. Where a view mixes, all have what mixing needs, with the whole share for texts that are
    as they are.
    """
    batches = [plain, *(each[0] for each in mixed if each is not None)]
    length = max(each.inputs.shape[1] for each in batches)
    whole = torch.ones(len(plain))
    none = all(each is None for each in mixed)
    views = [(plain, whole) if each is None else each for each in mixed]
    first = _filled_up(plain.inputs, length, pad)
    inputs = [first if none else _mixture(first, _filled_up(each.inputs, length, pad), share) for each, share in views]
    return replace(
        plain,
        inputs=_joined(inputs),
        labels=plain.labels.repeat(len(views)),
        index=None if plain.index is None else plain.index.repeat(len(views)),
        copies=len(views),
        mixed=() if none else tuple(each is not None for each in mixed),
        other_labels=None if none else torch.cat([each.labels for each, _ in views]),
        share=None if none else torch.cat([share for _, share in views]),
    )


def _mixture(one: Tokens, other: Tokens, share: Tensor) -> Tokens:
    ours, theirs = one.attention * share[:, None], other.attention * (1 - share)[:, None]
    return Tokens(
        tokens=one.tokens,
        attention=(ours > 0) | (theirs > 0),
        positions=one.positions.where(ours > 0, other.positions.where(theirs > 0, 0)),
        types=None if one.types is None or other.types is None else one.types.where(ours > 0, other.types),
        others=other.tokens,
        shares=torch.stack([ours, theirs], dim=-1),
    )


def _filled_up(tokens: Tokens, length: int, pad: int) -> Tokens:
    missing = length - tokens.shape[1]
    longer = tokens.map(lambda value: F.pad(value, (0, missing)))
    return replace(longer, tokens=F.pad(tokens.tokens, (0, missing), value=pad))


def _joined(parts: Sequence[Tokens]) -> Tokens:
    joined: Any = pytree.tree_map(lambda *values: None if values[0] is None else torch.cat(values), *parts)
    assert isinstance(joined, Tokens)
    return joined

"""What may write whole answers in the place of this library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from limbeck.policies.sampling import Sampling


class Wish(NamedTuple):
    """How answers are written.

    sampling: of the model. seeds: of each answer, so that it does not depend on the others. ends: end-of-sequence token ids.
    longest: tokens of the longest answer. vocabulary: so many of the model's first logits are tokens.
    """

    sampling: Sampling
    seeds: Sequence[int]
    ends: Sequence[int]
    longest: int
    vocabulary: int


class Written(NamedTuple):
    """An answer.

    tokens: with the end of sequence where it has one. usable: whether every logit was finite that it was drawn from.
    """

    tokens: list[int]
    usable: bool


class Engine(Protocol):
    """Runs one model."""

    def open(self) -> None:
        """Make ready for :meth:`write`, which may take a while the first time.

        Raises:
            SettingError: it cannot run the model.
        """

    def write(self, prompts: Sequence[Sequence[int]], wish: Wish) -> list[Written]:
        """Answers to prompts of token ids, with the weights that the model has now."""

    def close(self) -> None:
        """Give back what it holds; it can be opened again."""

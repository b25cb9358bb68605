"""An engine for texts without a cache and without a batch, in the place of one that must be installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from limbeck.policies import Sampling, Wish, Written


class Plain:
    """Writes greedily; its calls are counted."""

    def __init__(self, model: Any, unusable: Sequence[int] = ()) -> None:
        self.model, self.unusable = model, unusable
        self.opened = self.closed = 0
        self.wishes: list[Wish] = []

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def write(self, prompts: Sequence[Sequence[int]], wish: Wish) -> list[Written]:
        self.wishes.append(wish)
        return [self._answer(list(prompt), row, wish) for row, prompt in enumerate(prompts)]

    @torch.no_grad()
    def _answer(self, prompt: list[int], row: int, wish: Wish) -> Written:
        answer: list[int] = []
        while len(answer) < wish.longest and not set(answer) & set(wish.ends):
            logits = self.model(input_ids=torch.tensor([prompt + answer])).logits[0, -1, : wish.vocabulary]
            answer.append(int(logits.argmax()))
        return Written(answer, row not in self.unusable)


class PlainEngines:
    """Stands where a setting asks for vLLM, and knows the engines that it made."""

    def __init__(self) -> None:
        self.made: list[Plain] = []

    def check(self, sampling: Sampling) -> None:
        """Anything goes."""

    def of(self, model: Any, longest: int | None = None) -> Plain:
        assert longest is not None
        self.made.append(Plain(model))
        return self.made[-1]

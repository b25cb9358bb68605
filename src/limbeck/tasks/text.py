"""How a batch of text meets a network."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.signals import Batch
from limbeck.tokens import Tokens


@dataclass(frozen=True)
class TextTask:
    """Every network sees the tokens as they are; one tokenizer serves teacher and student."""

    def inputs(self, batch: Batch) -> Tokens:
        """The rows of tokens."""
        assert isinstance(batch.inputs, Tokens)
        return batch.inputs

"""The data's own answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from limbeck.policies.base import Policy
from limbeck.policies.draw import Draw
from limbeck.policies.prompts import Prompts, Response, Source, Statistics
from limbeck.policies.writer import Writer, check_completions, check_prompts


@dataclass(frozen=True)
class Fixed(Policy):
    """The completions of the data as they are: supervised distillation, and with the cross-entropy SFT.

    They are not cut at ``max_new_tokens``: an answer is the data's, whole, or an error where it does not fit into a context.
    """

    name: ClassVar[str] = "fixed"

    @property
    def needs(self) -> frozenset[str]:
        """The completions."""
        return frozenset({"completions"})

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """The completions, without columns that only hold padding."""
        assert prompts.completions is not None
        assert prompts.completion_mask is not None
        lengths = prompts.completion_mask.sum(-1)
        longest = int(lengths.max())
        for who, writer in (("student", student), ("teacher", teacher)):
            if writer is not None:
                check_prompts(writer, prompts, who, longest)
                check_completions(prompts, writer.tokens)
        mask = prompts.completion_mask[:, :longest]
        tokens = prompts.completions[:, :longest].where(mask, prompts.pad)
        source = torch.where(mask, Source.DATA, Source.NONE).to(torch.int8)
        return Response(tokens, mask, source, Statistics(rows=len(prompts), tokens=int(lengths.sum())))

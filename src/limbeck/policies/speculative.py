"""Speculative knowledge distillation: the student writes, and the teacher replaces what it finds implausible."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from limbeck.errors import SettingError, check_flag, check_whole
from limbeck.policies.base import Policy
from limbeck.policies.block import BlockChooser
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.generation import generate
from limbeck.policies.prompts import Prompts, Response, Statistics
from limbeck.policies.speculation import speculate
from limbeck.policies.writer import Writer, check_prompts


@dataclass(frozen=True)
class Speculative(Policy):
    r"""SKD (Xu et al., arXiv 2410.11325, Algorithm 1): a student's token outside of the teacher's top K is drawn anew by it.

    With the student's law q, the teacher's p (each after its own sampling settings) and A, the K tokens with the highest raw
    logits of the teacher at this prefix, the law of each token is

    m(y) = 1[y \in A] q(y) + (1 - q(A)) p(y).

    K = 0 is the teacher's text and K = V the student's; K = 1 is not the teacher's greedy text, for what is redrawn is
    drawn from p. The loss is meant for all tokens of the answer, those of both models. ``statistics.correction_rate`` must
    fall in training.

    The paper samples the student at temperature 0.5 and top_p 0.5, the teacher at 0.2 and 0.5; these are settings of the
    writers.

    Args:
        top_k: K; the paper's 25 is not tuned, and belongs to vocabularies of 150,000 to 256,000. A small vocabulary wants
            less.
        block: g, how many tokens the student proposes before the teacher reads them; "auto" chooses it from what rounds take
            (:class:`BlockChooser`). It alters the speed, and the text by rounding only.
        adaptive: K falls linearly with the position i of the token: max(1, K - ⌊i / max(⌊L / K⌋, 1)⌋ max(⌈K / L⌉, 1)).
            Reported as worse than a constant K (appendix C).
        expected_length: L of that formula; 0 takes ``max_new_tokens``.

    Differences from the released code (google-research, speculative_kd, 4c42994), all on the side of Algorithm 1:
        The token that is tested is the one that is kept; there, one freshly drawn from the student's scores is tested.
        The top K is that of raw logits; there, that of warped ones, where all tokens outside of the nucleus tie at zero.
        The student has sampling settings of its own; there, it drafts with a copy of the teacher's.
        The answer is kept as token ids, from its first one; there, it is decoded and tokenised again, and the loss leaves the
        first prediction out.
        ``adaptive`` counts positions; there, it counts rounds, so that the law of a token depends on the block.

    Raises:
        SettingError: an argument out of its range.
    """

    name: ClassVar[str] = "speculative"
    top_k: int = 25
    block: int | str = 5
    adaptive: bool = False
    expected_length: int = 0
    _chooser: BlockChooser = field(default_factory=BlockChooser, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_whole("top_k", self.top_k, low=0)
        if isinstance(self.block, str):
            if self.block != "auto":
                raise SettingError(f'block must be a whole number of at least 1 or "auto", got {self.block!r}.')
        else:
            check_whole("block", self.block, low=1)
        check_flag("adaptive", self.adaptive)
        check_whole("expected_length", self.expected_length, low=0)
        if self.expected_length and not self.adaptive:
            raise SettingError("expected_length is read with adaptive=True alone.")
        if self.adaptive and not self.top_k:
            raise SettingError("adaptive needs a top_k of at least 1: K falls to 1, and there is nothing below 0.")

    @property
    def needs(self) -> frozenset[str]:
        """Both models."""
        return frozenset({"student", "teacher"})

    @property
    def in_turns(self) -> bool:
        """They do."""
        return True

    def top_k_at(self, positions: Tensor, max_new_tokens: int) -> Tensor:
        """K at positions (int64, from 0) of an answer."""
        if not self.adaptive:
            return positions.new_full((), self.top_k).expand_as(positions)
        length = self.expected_length or max_new_tokens
        every, fall = max(length // self.top_k, 1), max(-(-self.top_k // length), 1)
        return (self.top_k - positions // every * fall).clamp(min=1)

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """What both write."""
        assert student is not None
        assert teacher is not None
        if self.top_k == 0:
            return self._by_teacher(prompts, student, teacher, draw)
        if self.top_k >= teacher.tokens and not self.adaptive:
            return self._by_student(prompts, student, teacher, draw)
        block = self.block if isinstance(self.block, int) else self._chooser
        longest = prompts.max_new_tokens
        return speculate(student, teacher, prompts, draw, lambda places: self.top_k_at(places, longest), block)

    @staticmethod
    def _by_teacher(prompts: Prompts, student: Writer, teacher: Writer, draw: Draw) -> Response:
        # Every proposal would be replaced: the student is not asked.
        check_prompts(student, prompts, "student")
        response = generate(teacher, prompts, draw, Stream.TEACHER)
        counted = Statistics(corrections=response.statistics.tokens)
        return replace(response, statistics=response.statistics + counted)

    @staticmethod
    def _by_student(prompts: Prompts, student: Writer, teacher: Writer, draw: Draw) -> Response:
        # No proposal would be replaced: the teacher is not asked.
        check_prompts(teacher, prompts, "teacher")
        response = generate(student, prompts, draw, Stream.STUDENT)
        tokens = response.statistics.tokens
        return replace(response, statistics=response.statistics + Statistics(proposed=tokens, accepted=tokens))

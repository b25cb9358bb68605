"""Text that student and teacher write together, in blocks (SKD, arXiv 2410.11325, Algorithm 1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.policies._answers import Answers, Round
from limbeck.policies.block import BlockChooser
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.generation import check_usable
from limbeck.policies.prompts import Prompts, Response, Source, Statistics
from limbeck.policies.writer import Writer, check_prompts, check_same_vocabulary

TopK = Callable[[Tensor], Tensor]
"""K for each position of an answer: int64 positions to int64 numbers of the same shape."""


def in_top_k(logits: Tensor, tokens: Tensor, top_k: Tensor) -> Tensor:
    """Whether each token is among the K tokens with the highest logits.

    Exactly K tokens are: of equal logits those with the lower ids come first.

    Args:
        logits: (..., V), raw: before temperature, nucleus or any other warper.
        tokens: (...) int64. top_k: (...) int64; 0 takes none, V or more takes all.

    Returns:
        (...) bool.
    """
    own = logits.gather(-1, tokens[..., None])
    lower = torch.arange(logits.shape[-1], device=logits.device) < tokens[..., None]
    ahead = (logits > own) | ((logits == own) & lower)
    return ahead.sum(-1) < top_k


def speculate(
    student: Writer, teacher: Writer, prompts: Prompts, draw: Draw, top_k: TopK, block: int | BlockChooser
) -> Response:
    r"""The student proposes a block; the teacher reads it in one pass, and replaces the first token outside of its top K.

    With the student's law q and the teacher's p after their sampling settings, and A the K tokens of the highest raw logits
    of the teacher, each token has the law

    m(y) = 1[y \in A] q(y) + (1 - q(A)) p(y)

    whatever the block: what follows a replaced token is dropped and proposed anew, and a block that is accepted whole gets no
    further token of the teacher. The student's i-th token has its random number and the teacher's i-th has one, so even the
    text is the same for every block, up to the rounding of passes of another shape.

    Both caches only ever grow by what is new; what was dropped is cut off or masked (:class:`Answers`).

    Args:
        top_k: K by position.
        block: tokens of a proposal, or a :class:`BlockChooser` that is told what each round took.

    Raises:
        SettingError: vocabularies that differ, or a writer with an engine.
        DataError: prompts that one of them cannot read or answer.
        TeacherError, NonFiniteError: logits that are NaN or infinite, with their row.
    """
    started = time.perf_counter()
    check_same_vocabulary(student, teacher)
    if student.engine is not None or teacher.engine is not None:
        raise SettingError(
            "a text that two models write in turns takes their own caches, and one has an engine beside it."
        )
    check_prompts(student, prompts, "student")
    check_prompts(teacher, prompts, "teacher")
    with ExitStack() as stack:
        for writer in (student, teacher):
            stack.enter_context(writer.silent())
        blocks = _Blocks(student, teacher, prompts, draw, top_k)
        while blocks.answers:
            if isinstance(block, int):
                blocks.write(block)
            else:
                blocks.write_timed(block)
    students, teachers = (context.passes for context in blocks.answers.contexts)
    seconds = time.perf_counter() - started
    counted = Statistics(student_passes=students, teacher_passes=teachers, seconds=seconds)
    return blocks.answers.finish(blocks.counted() + counted)


@dataclass(frozen=True)
class _Draft:
    """What the student proposes: tokens (R, g), and whether its logits were usable (R, g)."""

    tokens: Tensor
    usable: Tensor


class _Blocks:
    def __init__(self, student: Writer, teacher: Writer, prompts: Prompts, draw: Draw, top_k: TopK) -> None:
        self._student, self._teacher, self._prompts, self._top_k = student, teacher, prompts, top_k
        device, longest = prompts.tokens.device, prompts.max_new_tokens
        self._student_draws, self._teacher_draws = (
            draw.uniforms(stream, prompts.names, longest).to(device) for stream in (Stream.STUDENT, Stream.TEACHER)
        )
        self.answers = Answers(prompts, [student, teacher])
        self._rounds = self._proposed = 0
        # Added up on the device, so that a round waits for it once.
        self._accepted = self._corrected = torch.zeros((), dtype=torch.int64, device=device)

    def counted(self) -> Statistics:
        accepted, corrected = torch.stack([self._accepted, self._corrected]).tolist()
        return Statistics(proposed=self._proposed, accepted=accepted, corrections=corrected, rounds=self._rounds)

    def write(self, block: int) -> None:
        """One round of every row."""
        places = self.answers.round_of(min(block, self.answers.room))
        draft = self._propose(places)
        self._keep(draft, self._score(places, draft))

    def write_timed(self, chooser: BlockChooser) -> None:
        """One round, whose block was chosen by what rounds before it took, and which is measured in turn."""
        block = min(chooser.block, self.answers.room)
        before, accepted = time.perf_counter(), self._accepted
        places = self.answers.round_of(block)
        draft = self._propose(places)
        drafted = _now(draft.tokens)
        logits = self._score(places, draft)
        corrected = self._corrected
        self._keep(draft, logits)
        after = _now(draft.tokens)
        chooser.observe(
            block,
            draft_seconds=drafted - before,
            score_seconds=after - drafted,
            accepted=int(self._accepted - accepted),
            corrected=int(self._corrected - corrected),
            rows=len(self.answers.active),
            room=self.answers.room if len(self.answers.active) else 1,
        )

    def _propose(self, places: Round) -> _Draft:
        context, inputs = self.answers.contexts[0], self.answers.pending
        draws = self.answers.uniforms(self._student_draws, places.positions.shape[1])
        tokens, usable = [], []
        for place in range(places.positions.shape[1]):
            logits = places.feed(context, inputs, place)
            chosen, fine = self._student.sampling.choose(logits[:, -1], draws[:, place])
            inputs = chosen[:, None]
            tokens.append(chosen)
            usable.append(fine)
        return _Draft(torch.stack(tokens, dim=1), torch.stack(usable, dim=1))

    def _score(self, places: Round, draft: _Draft) -> Tensor:
        """The teacher's raw logits (R, g, V) for each of the proposed tokens, in one pass."""
        tokens = torch.cat([self.answers.pending, draft.tokens[:, :-1]], dim=1)
        return places.feed(self.answers.contexts[1], tokens)

    def _keep(self, draft: _Draft, logits: Tensor) -> None:
        answers, (rows, block) = self.answers, draft.tokens.shape
        steps = torch.arange(block, device=logits.device)
        accepted = in_top_k(logits, draft.tokens, self._top_k(answers.written[:, None] + steps))
        before = accepted.long().cumprod(-1).sum(-1)
        # A row whose block was accepted whole gets no token of the teacher; it draws one too, which nobody reads.
        rejected = before.clamp(max=block - 1)[:, None]
        deciding = logits.gather(1, rejected[:, :, None].expand(-1, -1, logits.shape[-1])).squeeze(1)
        draws = answers.uniforms(self._teacher_draws, block).gather(1, rejected).squeeze(1)
        replaced, _ = self._teacher.sampling.choose(deciding, draws)
        by_teacher = steps == before[:, None]
        tokens = torch.where(by_teacher, replaced[:, None], draft.tokens)
        kept = answers.until_end(tokens, (before + 1).clamp(max=block))
        self._check(draft.usable, logits, steps < kept[:, None])
        self._rounds += rows
        self._proposed += rows * block
        by_teacher = by_teacher & (steps < kept[:, None])
        self._corrected = self._corrected + by_teacher.sum()
        self._accepted = self._accepted + kept.sum() - by_teacher.sum()
        answers.keep(tokens, kept, torch.where(by_teacher, Source.TEACHER, Source.STUDENT).to(torch.int8))

    def _check(self, usable: Tensor, logits: Tensor, inside: Tensor) -> None:
        """Raise where logits that decided a kept token are not finite."""
        fine = torch.stack([usable, logits.amax(-1).isfinite()]) | ~inside
        if not bool(fine.all()):
            check_usable(fine[0].all(-1), self._prompts, self.answers.active, "student")
            check_usable(fine[1].all(-1), self._prompts, self.answers.active, "teacher")


def _now(tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()

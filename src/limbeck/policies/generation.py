"""Text of one model: batched sampling with a key-value cache, each row at its own place."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from limbeck.errors import LimbeckError, NonFiniteError, TeacherError
from limbeck.policies._answers import Answers
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.prompts import Prompts, Response, Source, Statistics, row_list
from limbeck.policies.writer import Writer, check_prompts

_SOURCES = {Stream.STUDENT: Source.STUDENT, Stream.TEACHER: Source.TEACHER}


def generate(writer: Writer, prompts: Prompts, draw: Draw, stream: Stream = Stream.STUDENT) -> Response:
    """Answers of one model.

    Each row stops at its own end of sequence and is not computed any further. Its text depends on the model, its prompt and
    ``draw`` for its name alone; the rest of the batch alters its logits by rounding and nothing else.

    Args:
        writer: in eval mode for this call, without gradient.
        stream: whose random numbers: ``Stream.STUDENT`` or ``Stream.TEACHER``.

    Raises:
        DataError, SettingError: prompts that the model cannot read or answer (:func:`check_prompts`).
        NonFiniteError: logits of the student that are NaN or infinite, with their row. TeacherError: those of the teacher.
    """
    started = time.perf_counter()
    who = stream.name.lower()
    check_prompts(writer, prompts, who)
    with writer.silent():
        table = draw.uniforms(stream, prompts.names, prompts.max_new_tokens).to(prompts.tokens.device)
        answers = Answers(prompts, [writer])
        source = torch.full_like(answers.pending, _SOURCES[stream], dtype=torch.int8)
        while answers:
            logits = answers.round_of(1).feed(answers.contexts[0], answers.pending)
            tokens, usable = writer.sampling.choose(logits[:, -1], answers.uniforms(table, 1).squeeze(1))
            check_usable(usable, prompts, answers.active, who)
            kept = torch.ones_like(tokens)
            answers.keep(tokens[:, None], kept, source[: len(tokens)])
    passes = answers.contexts[0].passes
    seconds = time.perf_counter() - started
    if stream is Stream.STUDENT:
        return answers.finish(Statistics(student_passes=passes, seconds=seconds))
    return answers.finish(Statistics(teacher_passes=passes, seconds=seconds))


def check_usable(usable: Tensor, prompts: Prompts, active: Tensor, who: str) -> None:
    """Raise unless every row's logits were usable.

    Args:
        usable: (R,) bool. active: (R,) int64 places of these rows among the prompts. who: "student" or "teacher".
    """
    if not bool(usable.all()):
        rows = torch.zeros(len(prompts), dtype=torch.bool, device=usable.device)
        rows[active[~usable]] = True
        kind: type[LimbeckError] = TeacherError if who == "teacher" else NonFiniteError
        named = f" (of the data: {row_list(rows, prompts.names)})" if prompts.rows is not None else ""
        raise kind(f"the {who}'s logits are NaN or infinite while it writes: {row_list(rows)} of the batch{named}.")

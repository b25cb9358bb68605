"""Text of one model: batched sampling with a key-value cache, each row at its own place."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from limbeck.errors import LimbeckError, NonFiniteError, TeacherError
from limbeck.policies._answers import Answers
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.engine import Engine, Wish
from limbeck.policies.prompts import Prompts, Response, Source, Statistics, row_list
from limbeck.policies.writer import Writer, check_prompts

_SOURCES = {Stream.STUDENT: Source.STUDENT, Stream.TEACHER: Source.TEACHER}


def generate(writer: Writer, prompts: Prompts, draw: Draw, stream: Stream = Stream.STUDENT) -> Response:
    """Answers of one model.

    Each row stops at its own end of sequence and is not computed any further. Its text depends on the model, its prompt and
    ``draw`` for its name alone; the rest of the batch alters its logits by rounding and nothing else. A writer with an engine
    of its own has it write, from other random numbers.

    Args:
        writer: in eval mode for this call, without gradient.
        stream: whose random numbers: ``Stream.STUDENT`` or ``Stream.TEACHER``.

    Raises:
        DataError, SettingError: prompts that the model cannot read or answer (:func:`check_prompts`).
        NonFiniteError: logits of the student that are NaN or infinite, with their row. TeacherError: those of the teacher.
    """
    who = stream.name.lower()
    check_prompts(writer, prompts, who)
    if writer.engine is not None:
        return _by_engine(writer, writer.engine, prompts, draw, stream)
    started = time.perf_counter()
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
    return answers.finish(_counted(stream, answers.contexts[0].passes, time.perf_counter() - started))


def _counted(stream: Stream, passes: int, seconds: float) -> Statistics:
    if stream is Stream.STUDENT:
        return Statistics(student_passes=passes, seconds=seconds)
    return Statistics(teacher_passes=passes, seconds=seconds)


def _by_engine(writer: Writer, engine: Engine, prompts: Prompts, draw: Draw, stream: Stream) -> Response:
    engine.open()
    started = time.perf_counter()
    asked = [row[mask].tolist() for row, mask in zip(prompts.tokens, prompts.mask, strict=True)]
    seeds = draw.seeds(stream, prompts.names)
    wish = Wish(writer.sampling, seeds, prompts.ends, prompts.max_new_tokens, writer.tokens)
    answers = engine.write(asked, wish)
    usable = torch.tensor([answer.usable for answer in answers])
    check_usable(usable, prompts, torch.arange(len(prompts)), stream.name.lower())
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[:, None]
    tokens = torch.full(mask.shape, prompts.pad)
    tokens[mask] = torch.tensor([token for answer in answers for token in answer.tokens])
    source = torch.where(mask, _SOURCES[stream], Source.NONE).to(torch.int8)
    known = Statistics(
        rows=len(answers),
        tokens=int(lengths.sum()),
        cut_off=sum(answer.tokens[-1] not in prompts.ends for answer in answers),
    )
    device = prompts.tokens.device
    counted = _counted(stream, longest, time.perf_counter() - started)
    return Response(tokens.to(device), mask.to(device), source.to(device), known + counted)


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

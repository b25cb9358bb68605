"""Engines beside this library: what one is told, and what becomes of what it writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from plain_engine import Plain

from limbeck.errors import LimbeckError, NonFiniteError, SettingError, TeacherError
from limbeck.policies import Draw, Sampling, Source, Stream, Writer, generate
from limbeck.policies.speculation import speculate

from .tiny import END, PAD, network, prompts, ragged, texts

DRAW = Draw(seed=4, step=2)


def with_engine(unusable: Sequence[int] = (), **more: object) -> tuple[Writer, Plain]:
    own = Writer(network(seed=1), Sampling(temperature=0))
    engine = Plain(own.model, unusable)
    return Writer(own.model, own.sampling, engine=engine, **more), engine


def test_what_an_engine_writes_is_what_this_library_would() -> None:
    writer, engine = with_engine()
    given = ragged(max_new_tokens=14, rows=torch.tensor([8, 3, 5, 1, 0]), end=[END, 4, 1])
    found, own = generate(writer, given, DRAW), generate(Writer(writer.model, writer.sampling), given, DRAW)
    assert texts(found.tokens, found.mask) == texts(own.tokens, own.mask)
    for one, other in ((found.tokens, own.tokens), (found.mask, own.mask), (found.source, own.source)):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    counted, expected = found.statistics, own.statistics
    assert (counted.rows, counted.tokens, counted.cut_off) == (expected.rows, expected.tokens, expected.cut_off)
    assert 0 < counted.cut_off < counted.rows
    assert counted.seconds > 0
    assert engine.opened == 1


def test_what_an_engine_is_told() -> None:
    writer, engine = with_engine()
    given = ragged(max_new_tokens=3, rows=torch.tensor([8, 3, 5, 1, 0]), end=[END, 6])
    generate(writer, given, DRAW)
    generate(writer, given.select(torch.tensor([3, 0])), DRAW)
    generate(writer, given, Draw(seed=4, step=3))
    first, part, later = engine.wishes
    assert first.sampling == writer.sampling
    assert (first.ends, first.longest, first.vocabulary) == ((END, 6), 3, 8)
    assert part.seeds == [first.seeds[3], first.seeds[0]]
    assert len({*first.seeds, *later.seeds}) == 10
    assert all(0 <= seed < 2**31 for seed in first.seeds)
    generate(Writer(writer.model, vocabulary=7, engine=engine), prompts([1, 2], end=6), DRAW)
    assert engine.wishes[-1].vocabulary == 7


def test_the_teacher_has_other_seeds_and_its_own_source() -> None:
    writer, engine = with_engine()
    generate(writer, ragged(), DRAW)
    found = generate(writer, ragged(), DRAW, Stream.TEACHER)
    assert not set(engine.wishes[0].seeds) & set(engine.wishes[1].seeds)
    assert set(found.source[found.mask].tolist()) == {Source.TEACHER}
    assert (found.tokens[~found.mask] == PAD).all()
    assert found.statistics.teacher_passes
    assert not found.statistics.student_passes


@pytest.mark.parametrize(("stream", "kind"), [(Stream.STUDENT, NonFiniteError), (Stream.TEACHER, TeacherError)])
def test_answers_from_logits_that_are_not_finite_are_an_error_with_their_rows(
    stream: Stream, kind: type[LimbeckError]
) -> None:
    writer, _ = with_engine(unusable=[1, 3])
    with pytest.raises(kind, match=r"rows 1, 3 of the batch \(of the data: rows 3, 1\)"):
        generate(writer, ragged(rows=torch.tensor([8, 3, 5, 1, 0])), DRAW, stream)


def test_two_models_cannot_write_in_turns_with_an_engine() -> None:
    writer, _ = with_engine()
    with pytest.raises(SettingError, match="in turns"):
        speculate(writer, Writer(network(seed=2)), ragged(), DRAW, lambda places: places, 2)

"""The block form against Algorithm 1 token by token, without a cache, for the same random numbers."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from limbeck.errors import NonFiniteError, SettingError, TeacherError
from limbeck.policies import (
    BlockChooser,
    Draw,
    Response,
    Sampling,
    Source,
    Stream,
    Writer,
    generate,
    speculate,
)
from limbeck.policies.speculation import TopK, in_top_k

from .reference import checked, top, written
from .tiny import CONTEXT, VOCABULARY, Endless, Watched, network, prompts, ragged, student, teacher, texts

DRAW = Draw(seed=1, step=5)
SOURCES = {int(Source.STUDENT): "S", int(Source.TEACHER): "T"}


def constant(k: int) -> TopK:
    return lambda positions: torch.full_like(positions, k)


def pairs(response: Response) -> list[list[tuple[int, str]]]:
    rows = zip(response.tokens, response.source, response.mask, strict=True)
    return [
        [(int(token), SOURCES[int(source)]) for token, source in zip(tokens[mask], sources[mask], strict=True)]
        for tokens, sources, mask in rows
    ]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7), st.integers(0, 9))
def test_the_top_k_are_exactly_k_also_where_logits_tie(logits: list[int], k: int) -> None:
    table = torch.tensor(logits, dtype=torch.bfloat16).expand(len(logits), -1)
    inside = in_top_k(table, torch.arange(len(logits)), torch.tensor(k))
    assert inside.nonzero().flatten().tolist() == sorted(top([float(value) for value in logits], k))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_it_is_algorithm_1_for_ragged_batches_and_any_block(family: str) -> None:
    writers = student(family), teacher(family, temperature=0.7, top_p=0.9)
    prompts = ragged(max_new_tokens=9)
    expected = written(writers, prompts, DRAW, lambda place: 3)
    assert {source for answer in expected for _, source in answer} == {"S", "T"}
    for block in (1, 2, 5):
        assert pairs(speculate(*writers, prompts, DRAW, constant(3), block)) == expected


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_long_answers_whose_caches_had_gaps_taken_out(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.policies import _answers, _cache

    sizes: list[int] = []
    keep = _cache.Context.keep
    monkeypatch.setattr(
        _cache.Context, "keep", lambda self, rows, slots: (sizes.append(slots is not None), keep(self, rows, slots))[1]
    )
    monkeypatch.setattr(_answers, "_SPARE_SLOTS", 4)
    writers = tuple(Writer(Endless(writer.model)) for writer in (student(family), teacher(family)))
    given = ragged(max_new_tokens=40)
    for k, block in ((1, 3), (4, 5)):
        sizes.clear()
        response = speculate(*writers, given, DRAW, constant(k), block)
        answers = texts(response.tokens, response.mask)
        assert pairs(response) == checked(writers, given, DRAW, lambda place, k=k: k, answers)
        assert response.statistics.cut_off == 5
        assert any(sizes)


def test_gpt2_up_to_the_last_place_of_its_context() -> None:
    # Rows propose beyond their end while others go on; a learned place beyond the context would be an error.
    writers = Writer(Endless(network("gpt2", seed=1))), Writer(Endless(network("gpt2", seed=2)), Sampling(0))
    given = prompts([1] * 6, [2, 3], max_new_tokens=CONTEXT - 6)
    response = speculate(*writers, given, DRAW, constant(2), 7)
    answers = texts(response.tokens, response.mask)
    assert pairs(response) == checked(writers, given, DRAW, lambda place: 2, answers)
    assert list(map(len, answers)) == [90, 90]


def test_k_0_is_the_teachers_text_and_k_v_the_students() -> None:
    writers, given = (student(), teacher(top_p=0.8)), ragged(max_new_tokens=16)
    none = speculate(*writers, given, DRAW, constant(0), 4)
    every = speculate(*writers, given, DRAW, constant(VOCABULARY), 4)
    alone = [generate(*each) for each in ((writers[1], given, DRAW, Stream.TEACHER), (writers[0], given, DRAW))]
    assert torch.equal(none.tokens, alone[0].tokens)
    assert torch.equal(every.tokens, alone[1].tokens)
    assert torch.equal(none.source, alone[0].source)
    assert torch.equal(every.source, alone[1].source)
    assert none.statistics.correction_rate == 1.0
    assert every.statistics.corrections == 0
    # One round for each token, and no token of the teacher after a block that was accepted whole.
    assert none.statistics.rounds == none.statistics.tokens
    assert every.statistics.tokens_per_round <= 4


def test_a_row_does_not_depend_on_its_batch_and_a_step_is_repeated() -> None:
    writers, given = (student(), teacher()), ragged(max_new_tokens=20)
    whole = pairs(speculate(*writers, given, DRAW, constant(3), 5))
    for which in ([3], [4, 0, 1]):
        assert pairs(speculate(*writers, given.select(torch.tensor(which)), DRAW, constant(3), 5)) == [
            whole[row] for row in which
        ]
    assert pairs(speculate(*writers, given, DRAW, constant(3), 5)) == whole
    assert pairs(speculate(*writers, given, Draw(1, 6), constant(3), 5)) != whole


def test_caches_are_never_rebuilt() -> None:
    writers, given = (student(), teacher()), ragged(max_new_tokens=24)
    with Watched(writers[0].model) as by_student, Watched(writers[1].model) as by_teacher:
        response = speculate(*writers, given, DRAW, constant(3), 5)
    # Once over the prompts, then g passes of one token and one pass of g tokens a round, over rows that go on alone.
    assert by_student.shapes[0] == by_teacher.shapes[0] == (5, 5)
    rounds = by_teacher.shapes[1:]
    assert by_student.shapes[1:] == [(rows, 1) for rows, block in rounds for _ in range(block)]
    assert sum(rows for rows, _ in rounds) == response.statistics.rounds
    assert sum(rows * block for rows, block in rounds) == response.statistics.proposed
    assert [rows for rows, _ in rounds] == sorted((rows for rows, _ in rounds), reverse=True)
    assert rounds[-1][0] < 5


def test_statistics_count_what_was_written() -> None:
    writers, given = (student(), teacher()), ragged(max_new_tokens=10)
    response = speculate(*writers, given, DRAW, constant(3), 4)
    found, rows = response.statistics, pairs(response)
    assert found.rows == 5
    assert found.tokens == sum(map(len, rows)) == found.accepted + found.corrections
    assert found.corrections == sum(source == "T" for row in rows for _, source in row)
    assert found.cut_off == sum(len(row) == 10 and row[-1][0] != 7 for row in rows)
    assert 0 < found.correction_rate < 1
    assert 0 < found.acceptance < 1
    assert found.tokens_per_round == pytest.approx(found.tokens / found.rounds)
    assert found.tokens_per_second > 0


def test_a_block_that_chooses_itself_writes_the_same_text() -> None:
    writers, given = (student(), teacher()), ragged(max_new_tokens=24)
    chooser = BlockChooser()
    response = speculate(*writers, given, DRAW, constant(4), chooser)
    assert pairs(response) == pairs(speculate(*writers, given, DRAW, constant(4), 5))
    assert 0 < chooser.acceptance < 1
    assert chooser.student_seconds > 0
    assert chooser.teacher_seconds(5) > 0


class Broken(nn.Module):
    """Says NaN of one row from its n-th pass on."""

    def __init__(self, inner: Any, row: int, passes: int) -> None:
        super().__init__()
        self.inner, self.config, self.row, self.left = inner, inner.config, row, count(-passes)

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        if next(self.left) >= 0:
            output.logits[self.row, 0] = float("nan")
        return output


@pytest.mark.parametrize(("who", "error"), [("student", NonFiniteError), ("teacher", TeacherError)])
def test_logits_that_are_nan_are_an_error_with_who_and_row(who: str, error: type[Exception]) -> None:
    writers = {"student": student(), "teacher": teacher()}
    writers[who] = Writer(Broken(network(seed=3), row=2, passes=1))
    with pytest.raises(error, match=rf"the {who}'s logits are NaN or infinite while it writes: row 2 of the batch"):
        speculate(writers["student"], writers["teacher"], ragged(), DRAW, constant(3), 2)


def test_a_nan_behind_the_kept_tokens_is_nobodys() -> None:
    # The student is NaN from its 4th pass on; with K = 0 each round keeps its first token alone.
    broken = Writer(Broken(network(seed=1), row=0, passes=4))
    response = speculate(broken, teacher(), ragged(max_new_tokens=1), DRAW, constant(0), 5)
    assert response.statistics.tokens == 5


def test_vocabularies_that_differ_are_an_error_unless_cut() -> None:
    wide = Writer(network(seed=2, vocabulary=11))
    with pytest.raises(SettingError, match="the student's vocabulary has 8 tokens and the teacher's 11"):
        speculate(student(), wide, ragged(), DRAW, constant(3), 5)
    cut = Writer(wide.model, vocabulary=8)
    assert int(speculate(student(), cut, ragged(), DRAW, constant(3), 5).tokens.max()) < 8

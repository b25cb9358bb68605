from __future__ import annotations

import pytest
import torch

from limbeck.errors import DataError, SettingError
from limbeck.policies import Draw, Fixed, Mixed, Source, StudentText, TeacherText, TwoStage

from .tiny import PAD, prompts, student, teacher, texts

COMPLETIONS = [[1, 2, 7], [4, 7], [3, 3, 3, 7], [6, 7]] * 5
TABLE = torch.tensor([row + [5] * (6 - len(row)) for row in COMPLETIONS])
MASK = torch.tensor([[True] * len(row) + [False] * (6 - len(row)) for row in COMPLETIONS])
GIVEN = prompts(*([[1, 2], [3], [4, 5, 6], [2]] * 5), completions=TABLE, completion_mask=MASK, max_new_tokens=6)


def test_fixed_is_the_data_without_columns_of_padding() -> None:
    response = Fixed().respond(GIVEN, None, None, Draw(0))
    assert texts(response.tokens, response.mask) == COMPLETIONS
    assert response.tokens.shape == (20, 4)
    assert (response.tokens[~response.mask] == PAD).all()
    assert set(response.source[response.mask].tolist()) == {Source.DATA}
    assert (response.statistics.rows, response.statistics.tokens) == (20, sum(map(len, COMPLETIONS)))


def test_fixed_is_checked_against_the_models_it_is_for() -> None:
    long = torch.ones(1, 95, dtype=torch.int64)
    given = prompts([1, 2], completions=long, completion_mask=long.bool())
    with pytest.raises(DataError, match="the student's context is 96 tokens; a prompt of 2 and 95 new tokens need 97"):
        Fixed().respond(given, student(), None, Draw(0))
    given = prompts([1, 2], completions=torch.tensor([[1, 9]]), completion_mask=torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(DataError, match="completions hold token ids outside of the vocabulary of 0 to 7: 9 in row 0"):
        Fixed().respond(given, None, teacher(), Draw(0))


def test_a_coin_for_each_example_takes_rows_from_both_as_they_would_be_alone() -> None:
    draw = Draw(2, 3)
    response = Mixed(share=0.4).respond(GIVEN, student(), None, draw)
    own = StudentText().respond(GIVEN, student(), None, draw)
    theirs = texts(own.tokens, own.mask)
    source = response.source[:, 0].tolist()
    assert 2 < source.count(Source.STUDENT) < 18
    for row, answer in enumerate(texts(response.tokens, response.mask)):
        assert answer == (theirs if source[row] == Source.STUDENT else COMPLETIONS)[row]
    assert response.statistics.tokens == int(response.mask.sum())
    assert response.statistics.rows == 20


def test_a_coin_for_each_batch_falls_for_all_rows_and_by_the_step() -> None:
    policy = Mixed(TeacherText(), Fixed(), share=0.3, per="batch")
    some = GIVEN.select(torch.arange(2))
    falls = []
    for step in range(60):
        source = policy.respond(some, None, teacher(), Draw(0, step)).source[:, 0].tolist()
        assert len(set(source)) == 1
        falls.append(source[0] == Source.TEACHER)
    assert 8 < sum(falls) < 30


def test_the_ends_of_share_ask_one_model_alone() -> None:
    assert (Mixed(share=0).respond(GIVEN, student(), None, Draw(0)).source != Source.STUDENT).all()
    assert (Mixed(share=1).respond(GIVEN, student(), None, Draw(0)).source != Source.DATA).all()


def test_coins_inside_one_another_are_independent() -> None:
    inner = Mixed(TeacherText(), Fixed())
    source = Mixed(inner, StudentText()).respond(GIVEN, student(), teacher(), Draw(5)).source[:, 0].tolist()
    # With one coin for both, a row of the inner policy would always be the teacher's.
    assert set(source) == {Source.DATA, Source.STUDENT, Source.TEACHER}


def test_two_stages_change_over_at_their_share() -> None:
    policy = TwoStage(share=0.25)
    for progress, source in ((0.0, Source.DATA), (0.24, Source.DATA), (0.25, Source.STUDENT), (1.0, Source.STUDENT)):
        response = policy.respond(GIVEN, student(), None, Draw(0, 1, progress))
        assert set(response.source[response.mask].tolist()) == {source}


def test_what_a_policy_needs_is_asked_for_before_it_writes() -> None:
    with pytest.raises(SettingError, match="two_stage changes over the training, and how far that is was not given"):
        TwoStage().respond(GIVEN, student(), None, Draw(0))
    with pytest.raises(SettingError, match="the text policy teacher writes with the teacher, and none was given"):
        TeacherText().respond(GIVEN, student(), None, Draw(0))
    with pytest.raises(
        DataError, match="the text policy mixed takes the data's own answers, and these prompts have none"
    ):
        Mixed().respond(prompts([1]), student(), None, Draw(0))
    assert TwoStage(then=Mixed(TeacherText())).needs == {"completions", "teacher", "progress"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixed(share=1.1), "share must be at most 1"),
        (lambda: Mixed(per="row"), "per: unknown value 'row'"),
        (lambda: Mixed("student"), "of of mixed must be a text policy, got 'student'"),
        (lambda: TwoStage(share=-0.1), "share must be at least 0"),
        (lambda: TwoStage(then=None), "then of two_stage must be a text policy, got None"),
    ],
)
def test_arguments_are_checked(make: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()  # type: ignore[operator]

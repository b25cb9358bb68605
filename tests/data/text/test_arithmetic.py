from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.text import ALPHABET, arithmetic, load_text
from limbeck.data.text.arithmetic import _problem
from limbeck.errors import SettingError


@pytest.mark.parametrize(("digits", "operations"), [(1, "-"), (2, "+-"), (4, "+"), (9, "+-")])
def test_answers_are_right_and_no_problem_is_in_two_splits(digits: int, operations: str) -> None:
    data = arithmetic(digits=digits, operations=operations, train=30, val=5, test=6)
    seen = set()
    for name, count in (("train", 30), ("val", 5), ("test", 6)):
        split = data.split(name)
        assert [example.index for example in split] == list(range(count))
        for example in split:
            found = re.fullmatch(r"(\d+)([+-])(\d+)=", example.prompt)
            assert found
            one, operation, other = int(found[1]), found[2], int(found[3])
            assert operation in operations
            assert max(one, other) < 10**digits
            assert int(example.completion) == (one + other if operation == "+" else one - other)
            seen.add((operation, *(sorted((one, other)) if operation == "+" else (one, other))))
            assert set(example.prompt + example.completion) <= set(ALPHABET)
    assert len(seen) == 41


def test_every_pair_of_a_sum_has_one_number() -> None:
    found = {_problem(number, 10, "+", 0)[0] for number in range(55)}
    assert found == {f"{a}+{b}=" for a in range(10) for b in range(a, 10)}


def test_it_is_repeatable_and_is_read_from_text() -> None:
    data = arithmetic(digits=3, train=20, val=0, test=5, seed=4)
    assert data == arithmetic(digits=3, train=20, val=0, test=5, seed=4)
    assert data == load_text("arithmetic(digits=3, train=20, val=0, test=5, seed=4)", val_fraction=0)
    assert data.train != arithmetic(digits=3, train=20, val=0, test=5, seed=5).train
    assert len(load_text("arithmetic").train) == 2000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("arithmetic(digit=2)", "unknown setting 'digit'; did you mean 'digits'"),
        ("arithmetic(digits=10)", "at most 9"),
        ("arithmetic(digits=1)", "ask for fewer"),
        ("arithmetic(operations='*')", "operations must be"),
        ("arithmetic(train=0)", "at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_told(text: str, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        load_text(text)


def test_it_takes_no_columns() -> None:
    with pytest.raises(SettingError, match="neither columns nor kind"):
        load_text("arithmetic", columns={"text": "a"})


@given(digits=st.integers(1, 4), seed=st.integers(0, 5))
def test_backwards_sums_begin_with_their_ones(digits: int, seed: int) -> None:
    forwards = arithmetic(digits=digits, operations="+", train=10, val=2, test=3, seed=seed)
    data = arithmetic(digits=digits, operations="+", train=10, val=2, test=3, seed=seed, backwards=True)
    for plain, example in zip(forwards.train, data.train, strict=True):
        one, other = example.prompt.removesuffix("=").split("+")
        assert len(one) == len(other) == digits
        assert len(example.completion) == digits + 1
        assert int(one) + int(other) == int(example.completion[::-1]) == int(plain.completion)
        assert [int(number) for number in plain.prompt.removesuffix("=").split("+")] == [int(one), int(other)]


@pytest.mark.parametrize(
    ("settings", "said"), [({"backwards": 1}, "True or False"), ({"backwards": True}, r"operations='\+'")]
)
def test_what_cannot_be_backwards(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        arithmetic(**settings)

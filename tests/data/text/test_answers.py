from __future__ import annotations

import pytest

from limbeck.data.text.answers import gsm8k, last_number, marked, same_answer, whole


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 3 apples and 4 pears.", "4"),
        ("It costs $1,250.50.", "1250.50"),
        ("That leaves -7", "-7"),
        ("so 5-3", "3"),
        ("(2)-3", "3"),
        ("x=−4", "-4"),
        ("about .5 of it", ".5"),
        ("a lot", None),
        ("3, then 4,", "4"),
        ("-$5", "-5"),
        ("", None),
    ],
)
def test_the_last_number(text: str, answer: str | None) -> None:
    assert last_number(text) == answer


def test_the_marked_answer() -> None:
    assert marked("7 + 35 = <<7+35=42>>42\n#### 42") == "42"
    assert marked("#### 1\nNo: #### 2 \nQuestion: 3") == "2"
    assert marked("42") is None
    assert marked("#### \n") is None
    assert whole(" 42\n") == "42"


def test_gsm8k_falls_back_on_the_last_number() -> None:
    assert gsm8k("1 + 1 = 2\n#### 1,000 dollars") == "1000"
    assert gsm8k("The answer is 17.") == "17"
    assert gsm8k("I do not know.") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("42", "42.0", True),
        ("$1,000", "1000", True),
        ("42.", "42", True),
        ("-0", "0", True),
        ("0.50", "0.5", True),
        ("001", "1", False),
        ("0700", "700", False),
        ("001", "001", True),
        ("0.1", "0.10000000000000000001", False),
        ("yes", " yes", True),
        ("yes", "no", False),
        ("nan", "nan", True),
        (None, None, False),
        ("1", None, False),
    ],
)
def test_answers_are_compared_as_numbers_where_they_are(one: str | None, other: str | None, same: bool) -> None:
    assert same_answer(one, other) is same
    assert same_answer(other, one) is same

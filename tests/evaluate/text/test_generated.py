from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import DataError, SettingError
from limbeck.evaluate.text import exact_match, rouge_l
from limbeck.evaluate.text.generated import _common

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


def slow_common(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one, start=1):
        for j, b in enumerate(other, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@given(WORDS, WORDS)
def test_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    assert _common(one, other) == slow_common(one, other) == _common(other, one)


def test_lins_example() -> None:
    # Lin (2004), section 3.1: S1 and S2 share "police the gunman" of 4 words each; S1 and S3 share "the gunman".
    found = rouge_l(["police kill the gunman"], ["police killed the gunman"])
    assert (found.precision, found.recall, found.f1) == (0.75, 0.75, 0.75)
    assert rouge_l(["the gunman kill police"], ["police killed the gunman"]).f1 == 0.5


def test_rouge_l_is_a_mean_over_texts() -> None:
    found = rouge_l(["A b, c!", "x", ""], ["a B d e", "y", "z"])
    assert found.count == 3
    assert found.precision == pytest.approx(2 / 3 / 3)
    assert found.recall == pytest.approx(2 / 4 / 3)
    assert found.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2) / 3)
    assert rouge_l(["Größe zählt"], ["größe zählt nicht"]).recall == pytest.approx(2 / 3)


def test_exact_match() -> None:
    found = exact_match([" 42", "42.0", "43", ""], ["42"] * 4)
    assert (found.count, found.right, found.unanswered, found.share) == (4, (True, True, False, False), 1, 0.5)


def test_exact_match_of_worked_answers() -> None:
    wanted = ["2 + 2 = 4\n#### 4", "#### 1,000", "#### 7"]
    generated = ["That is 4.", "10 * 100 = 1000\n#### 1000", "no idea"]
    assert exact_match(generated, wanted, "gsm8k").right == (True, True, False)
    assert exact_match(generated, wanted, "marked").right == (False, True, False)
    assert exact_match(generated, wanted, "marked").unanswered == 2


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="got 1 and 2"):
        exact_match(["1"], ["1", "2"])
    with pytest.raises(DataError, match="got 0 and 0"):
        rouge_l([], [])
    with pytest.raises(DataError, match="wanted text 1 has no answer"):
        exact_match(["1", "2"], ["#### 1", "2"], "marked")
    with pytest.raises(SettingError, match="did you mean 'gsm8k'"):
        exact_match(["1"], ["1"], "gsm")  # type: ignore[arg-type]

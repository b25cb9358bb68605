"""Figures of generated texts against the texts that were wanted: exact match of answers, ROUGE-L."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.data.text.answers import EXTRACTIONS, Extraction, same_answer
from limbeck.errors import DataError, check_choice

# Letters and digits of any script; rouge_score takes those of ASCII alone, so that other scripts count as nothing.
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class ExactMatch:
    """How many of ``count`` generated texts have the right answer, and how many have none at all. right: one bool a text."""

    count: int
    right: tuple[bool, ...]
    unanswered: int

    @property
    def share(self) -> float:
        """The share of right answers, in [0, 1]."""
        return sum(self.right) / self.count


def exact_match(generated: Sequence[str], wanted: Sequence[str], extraction: Extraction = "whole") -> ExactMatch:
    """Compare the answers in generated texts with those in the wanted ones.

    extraction: where the answer is: ``whole`` text, ``marked`` by ``####``, the ``last_number``, or as in ``gsm8k`` the
    marked number, or the last one where there is no mark. Numbers are compared as numbers.

    Raises:
        SettingError: no such extraction.
        DataError: nothing to compare, texts of different number, or a wanted text without an answer.
    """
    check_choice("extraction", extraction, EXTRACTIONS)
    _check_pairs(generated, wanted)
    extract = EXTRACTIONS[extraction]
    answers, right_ones = [extract(text) for text in generated], [extract(text) for text in wanted]
    if None in right_ones:
        place = right_ones.index(None)
        raise DataError(
            f"the wanted text {place} has no answer to be extracted as '{extraction}': {wanted[place]!r:.200}."
        )
    right = tuple(same_answer(one, other) for one, other in zip(answers, right_ones, strict=True))
    return ExactMatch(len(right), right, sum(answer is None for answer in answers))


@dataclass(frozen=True)
class RougeL:
    """Means over ``count`` texts, each in [0, 1]."""

    count: int
    precision: float
    recall: float
    f1: float


def rouge_l(generated: Sequence[str], wanted: Sequence[str]) -> RougeL:
    """ROUGE-L of generated texts against one wanted text each (Lin, 2004, section 3; β = 1).

    With the longest common subsequence of the words, LCS words long: precision LCS / generated words, recall LCS / wanted
    words, F1 their harmonic mean; all 0 where either text has no word. Words are runs of letters and digits in lower case,
    not stemmed, as in the package rouge_score without its stemmer but for scripts other than ASCII, which it leaves out. The
    whole text is one sequence (rougeL, not rougeLsum).

    Raises:
        DataError: nothing to compare, or texts of different number.
    """
    _check_pairs(generated, wanted)
    found = [_rouge_l(_words(one), _words(other)) for one, other in zip(generated, wanted, strict=True)]
    precision, recall, f1 = (sum(column) / len(found) for column in zip(*found, strict=True))
    return RougeL(len(found), precision, recall, f1)


def _check_pairs(generated: Sequence[str], wanted: Sequence[str]) -> None:
    if len(generated) != len(wanted) or not generated:
        raise DataError(f"a wanted text is needed for each generated one; got {len(generated)} and {len(wanted)}.")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _rouge_l(generated: Sequence[str], wanted: Sequence[str]) -> tuple[float, float, float]:
    common = _common(generated, wanted)
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / len(generated), common / len(wanted)
    return precision, recall, 2 * precision * recall / (precision + recall)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table of lengths at a time in the bits of one number.

    A zero at bit i says that the length grows at word i of ``one`` (Hyyrö, 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = row = (1 << len(one)) - 1
    for word in other:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(one) - row.bit_count()

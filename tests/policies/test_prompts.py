from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.errors import DataError, SettingError
from limbeck.policies import Prompts, Statistics

TOKENS = torch.tensor([[5, 1, 2], [3, 4, 6]])
MASK = torch.tensor([[False, True, True], [True, True, True]])


def made(**changes: Any) -> Prompts:
    return Prompts(**{"tokens": TOKENS, "mask": MASK, "pad": 0, "end": 7, "max_new_tokens": 4, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.tensor([[False] * 3, [True] * 3])}, "these prompts are empty: row 0 of the batch"),
        ({"mask": MASK.flip(1)}, "not padded on the left: row 0"),
        ({"mask": torch.tensor([[True, False, True]] * 2)}, "not padded on the left: rows 0, 1"),
        ({"mask": MASK.int()}, r"the mask of prompts must be bool of shape \(2, 3\), got int32"),
        ({"tokens": TOKENS.float()}, "prompts must be int64 token ids"),
        ({"tokens": TOKENS[:0], "mask": MASK[:0]}, "prompts must be int64 token ids"),
        ({"rows": torch.arange(3)}, r"rows must be int64 of shape \(2,\)"),
        ({"completions": TOKENS}, "together or not at all"),
        ({"completions": TOKENS, "completion_mask": MASK}, "not padded on the right: row 0"),
        ({"completions": TOKENS, "completion_mask": ~MASK}, "these completions are empty: row 1"),
        ({"completions": TOKENS[:1], "completion_mask": MASK[1:]}, "2 prompts and 1 completions"),
    ],
)
def test_tables_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1"),
        ({"pad": None}, "the pad token id must be a whole number"),
        ({"end": -1}, "the end-of-sequence token id"),
        ({"end": ()}, "there is no end-of-sequence token id"),
    ],
)
def test_numbers_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        made(**changes)


def test_many_rows_are_not_all_listed() -> None:
    mask = torch.zeros(12, 3, dtype=torch.bool)
    with pytest.raises(DataError, match="rows 0, 1, 2, 3, 4, 5, 6, 7 and 4 more of the batch"):
        made(tokens=TOKENS[:1].expand(12, -1), mask=mask)


def test_a_selection_keeps_names_and_loses_padding() -> None:
    some = made(completions=TOKENS, completion_mask=torch.ones_like(MASK)).select(torch.tensor([0]))
    assert some.tokens.tolist() == [[1, 2]]
    assert some.names.tolist() == [0]
    assert some.completions is not None
    assert some.completions.tolist() == [[5, 1, 2]]
    assert made(rows=torch.tensor([9, 4])).select(torch.tensor([1])).names.tolist() == [4]


def test_statistics_add_up() -> None:
    total = Statistics(rows=1, tokens=10, proposed=12, accepted=8, corrections=2, rounds=3, seconds=2.0)
    total += Statistics(rows=1, tokens=10, proposed=8, accepted=2, corrections=3, rounds=2, seconds=3.0)
    assert (total.rows, total.correction_rate, total.acceptance) == (2, 0.25, 0.5)
    assert (total.tokens_per_round, total.tokens_per_second) == (3.0, 4.0)
    assert Statistics().correction_rate == Statistics().tokens_per_second == 0.0

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.data.search import Example, Found, SearchData, bm25, hard_negatives
from limbeck.errors import DataError, SettingError


def found_of(data: SearchData) -> Found:
    """Every query finds the documents d1, d4 (its copy), d2, d3, d5, d6, d7, d8 in this order."""
    documents = torch.tensor([0, 3, 1, 2, 4, 5, 6, 7]).expand(4, 8)
    return Found(torch.arange(4), documents, torch.arange(8.0, 0, -1).expand(4, 8))


def ids(data: SearchData, example: Example) -> list[str]:
    return [data.documents.ids[place] for place in example.negatives]


def test_negatives_are_the_first_that_answer_nothing(data: SearchData) -> None:
    mined = hard_negatives(data, data.training(), found_of(data), 3)
    by_positive = {
        (example.query, data.documents.ids[example.positive]): ids(data, example) for example in mined.examples
    }
    assert by_positive == {
        (0, "d1"): ["d2", "d3", "d5"],  # neither d1, its copy d4, nor d8
        (0, "d8"): ["d2", "d3", "d5"],
        (1, "d2"): ["d1", "d3", "d5"],  # d4 says what d1 says
        (2, "d5"): ["d1", "d2", "d3"],
        (3, "d3"): ["d1", "d2", "d5"],
        (3, "d7"): ["d1", "d2", "d5"],
    }
    assert (mined.relevant, mined.near, mined.few) == (3 + 3 + 1 + 1 + 2 + 2, 0, 0)
    assert str(mined) == "18 hard negatives for 6 examples; left out: 12 candidates that are relevant"


def test_the_first_can_be_passed_over(data: SearchData) -> None:
    mined = hard_negatives(data, data.training()[:1], found_of(data), 9, skip=2)
    assert ids(data, mined.examples[0]) == ["d5", "d6", "d7"]
    assert mined.few == 1


@pytest.mark.parametrize(("limit", "wanted"), [({"margin": 3.0}, ["d3", "d5"]), ({"share": 0.5}, ["d5", "d6"])])
def test_false_negatives_are_left_out(data: SearchData, limit: dict[str, Any], wanted: list[str]) -> None:
    found = found_of(data)
    positive: Tensor = torch.full((1,), 8.0)
    mined = hard_negatives(data, data.training()[:1], found, 2, scores=found.scores, positive_scores=positive, **limit)
    (example,) = mined.examples
    assert ids(data, example) == wanted
    scores = dict(zip(found.documents[0].tolist(), found.scores[0].tolist(), strict=True))
    assert example.scores == (8.0, *(scores[place] for place in example.negatives))
    assert mined.near == {"d3": 1, "d5": 2}[wanted[0]]
    assert str(mined).endswith(f"{mined.near} that the teacher scores too near to the positive")


def test_examples_that_got_none_are_told(data: SearchData) -> None:
    """All candidates are too near: no example has a hard negative."""
    found = found_of(data)
    mined = hard_negatives(
        data, data.training()[:1], found, 2, scores=found.scores, positive_scores=torch.full((1,), -9.0), margin=0.0
    )
    assert str(mined).startswith(
        "0 hard negatives for 1 examples, of which 1 got fewer than were asked for; left out: "
    )


def test_settings_of_mining(data: SearchData) -> None:
    found, examples = found_of(data), data.training()
    with pytest.raises(SettingError, match="give scores and positive_scores together"):
        hard_negatives(data, examples, found, 1, margin=0.1)
    with pytest.raises(SettingError, match="either margin or share"):
        hard_negatives(data, examples, found, 1, margin=0.1, share=0.5)
    with pytest.raises(DataError, match="scores must be of shapes"):
        hard_negatives(data, examples, found, 1, scores=found.scores, positive_scores=torch.zeros(2))
    with pytest.raises(DataError, match="nothing was searched for query 'q4'"):
        hard_negatives(data, examples, Found(found.queries[:3], found.documents[:3], found.scores[:3]), 1)


def test_bm25_finds_by_words(data: SearchData) -> None:
    pytest.importorskip("bm25s", reason="BM25 is made by the package bm25s")
    found = bm25(data, torch.tensor([0, 2]), 3)
    assert found.documents.shape == found.scores.shape == (2, 3)
    assert set(found.documents[0, :2].tolist()) == {0, 3}
    assert found.documents[1, 0] == 4
    assert (found.scores.diff(dim=1) <= 0).all()
    assert found.scores[0, 2] == 0
    with pytest.raises(SettingError, match="count=9 is more than the 8 documents"):
        bm25(data, torch.tensor([0]), 9)

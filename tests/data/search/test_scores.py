from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from limbeck.data.search import ScoreCache
from limbeck.errors import CacheError

FACTS = {"teacher": "abc", "max_length": "256", "prompt": ""}


class Teacher:
    """Scores a pair by its places, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, queries: Tensor, documents: Tensor) -> Tensor:
        self.asked += zip(queries.tolist(), documents.tolist(), strict=True)
        return queries.double() + documents.double() / 100


def test_no_pair_is_scored_twice(tmp_path: Path) -> None:
    teacher = Teacher()
    queries, documents = torch.tensor([[2], [0]]), torch.tensor([[5, 1, 5], [3, 1, 0]])
    path = tmp_path / "new" / "scores.safetensors"
    found = ScoreCache(path, FACTS).scores(queries, documents, teacher)
    assert torch.equal(found, (queries + documents / 100).float())
    assert sorted(teacher.asked) == [(0, 0), (0, 1), (0, 3), (2, 1), (2, 5)]
    again = ScoreCache(path, FACTS)
    assert len(again) == 5
    assert again.count(queries, documents) == (5, 5)
    assert again.count(torch.tensor([2, 9, 9]), torch.tensor([5, 9, 9])) == (2, 1)
    assert torch.equal(again.scores(queries, documents, teacher), found)
    assert len(teacher.asked) == 5
    assert again.scores(torch.tensor([2, 9]), torch.tensor([5, 9]), teacher).tolist() == pytest.approx([2.05, 9.09])
    assert teacher.asked[5:] == [(9, 9)]
    assert [file.name for file in path.parent.iterdir()] == ["scores.safetensors"]


def test_scores_of_another_teacher_or_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    ScoreCache(path, FACTS).scores(torch.tensor([1]), torch.tensor([1]), Teacher())
    with pytest.raises(CacheError, match="made with max_length '256', and '128' is asked for"):
        ScoreCache(path, {**FACTS, "max_length": "128"})
    with pytest.raises(CacheError, match="made with tokenizer None, and 'xyz'"):
        ScoreCache(path, {**FACTS, "tokenizer": "xyz"})


def test_damage_and_bad_scores_are_told(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    cache = ScoreCache(path, FACTS)
    with pytest.raises(CacheError, match="not finite"):
        cache.scores(torch.tensor([1]), torch.tensor([1]), lambda queries, documents: torch.tensor([torch.nan]))
    with pytest.raises(CacheError, match="each of 1 pairs"):
        cache.scores(torch.tensor([1]), torch.tensor([1]), lambda queries, documents: torch.zeros(2))
    assert not path.exists()
    path.write_bytes(b"nothing")
    with pytest.raises(CacheError, match="no file of scores, or damaged"):
        ScoreCache(path, FACTS)

"""Search and its figures against slow, explicit ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.data.search import Found, SearchData, Tokenising
from limbeck.data.search.gather import gather
from limbeck.data.text import ByteTokenizer
from limbeck.errors import DataError, SettingError
from limbeck.evaluate.search import MEASURES, beside, check_same_similarity, embed, find, make_index, score, search_cost

DOCUMENTS = 12


def collection(judged: list[tuple[str, str, int]]) -> SearchData:
    queries = [(f"q{i}", f"query {i}") for i in range(3)]
    documents = [(f"d{i}", f"document {'x' * i}") for i in range(DOCUMENTS)]
    return gather("made", documents, queries, {"test": judged})[0]


def found_of(data: SearchData, orders: list[list[int]]) -> Found:
    """In these orders, with scores that tie in pairs."""
    scores = torch.tensor([[float(-(rank // 2)) for rank in range(len(orders[0]))] for _ in orders])
    return Found(torch.arange(len(orders)), torch.tensor(orders), scores)


def slow_measures(grades: Mapping[str, int], names: list[str]) -> dict[str, float]:
    """nDCG and the others of one query by their definitions."""
    gains = [max(0, grades.get(name, 0)) for name in names]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    relevant = len(ideal)

    def dcg(values: list[int]) -> float:
        return sum(value / math.log2(rank + 1) for rank, value in enumerate(values[:10], start=1))

    ranks = [rank for rank, gain in enumerate(gains, start=1) if gain > 0]
    return {
        "nDCG@10": dcg(gains) / dcg(ideal),
        "RR@10": next((1 / rank for rank in ranks if rank <= 10), 0.0),
        "R@10": sum(rank <= 10 for rank in ranks) / relevant,
        "R@5": sum(rank <= 5 for rank in ranks) / relevant,
        "AP": sum(number / rank for number, rank in enumerate(ranks, start=1)) / relevant,
    }


GRADES = st.lists(st.integers(-1, 3), min_size=DOCUMENTS, max_size=DOCUMENTS)


@settings(max_examples=30)
@given(st.lists(GRADES, min_size=3, max_size=3), st.lists(st.permutations(range(DOCUMENTS)), min_size=3, max_size=3))
def test_measures_are_their_definitions(grades: list[list[int]], orders: list[list[int]]) -> None:
    pytest.importorskip("ir_measures", reason="figures are made by the package ir_measures")
    judged = [(f"q{q}", f"d{d}", grade) for q, row in enumerate(grades) for d, grade in enumerate(row) if grade != 0]
    judged += [("q0", "d0", grades[0][0])] * (grades[0][0] == 0)
    if not any(grade > 0 for _, _, grade in judged):
        return
    data = collection(judged)
    names = ["nDCG@10", "RR@10", "R@10", "R@5", "AP"]
    found = score(data, "test", found_of(data, [list(order)[:11] for order in orders]), names)
    part = data.part("test")
    assert found.count == len(part)
    for query, graded in part.items():
        ranked = [f"d{place}" for place in orders[int(query[1:])][:11]]
        for name, value in slow_measures(graded, ranked).items():
            assert found.queries[name][query] == pytest.approx(value, abs=1e-9)
    for name in names:
        assert found.means[name] == pytest.approx(sum(found.queries[name].values()) / len(part), abs=1e-12)


def test_what_cannot_be_scored(data: SearchData) -> None:
    found = found_of(data, [list(range(8))] * 3)
    with pytest.raises(SettingError, match=r"'R@100' looks at 100 documents, and 8 were searched"):
        score(data, "test", found, ["R@5", "R@100"])
    assert set(score(data, "test", found_of(data, [list(range(DOCUMENTS))] * 3)).means) == set(MEASURES)
    with pytest.raises(SettingError, match="'nDGC@10' is no measure"):
        score(data, "test", found, ["nDGC@10"])
    with pytest.raises(DataError, match="nothing was searched for query 'q2'"):
        score(data, "test", Found(found.queries[:2], found.documents[:2], found.scores[:2]), ["R@5"])


@pytest.fixture
def data() -> SearchData:
    return collection([("q0", "d0", 1), ("q0", "d5", 1), ("q1", "d1", 2), ("q2", "d2", 1), ("q2", "d3", 0)])


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_search_finds_the_highest_scores(similarity: str, backend: str) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss", reason="this search is made by the package faiss-cpu")
    generator = torch.Generator().manual_seed(0)
    documents, queries = (torch.randn(count, 6, generator=generator) for count in (40, 5))
    index = make_index(documents, similarity=similarity, backend=backend)
    found = find(index, queries, torch.arange(5), 7)
    for row, query in enumerate(queries.tolist()):
        scores = []
        for document in documents.tolist():
            product = sum(a * b for a, b in zip(query, document, strict=True))
            lengths = math.hypot(*query) * math.hypot(*document) if similarity == "cosine" else 1.0
            scores.append(product / lengths)
        wanted = sorted(range(40), key=lambda place: -scores[place])[:7]
        assert found.documents[row].tolist() == wanted
        assert found.scores[row].tolist() == pytest.approx([scores[place] for place in wanted], rel=1e-5)
    assert index.bytes == 40 * 6 * 4


def test_search_goes_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = torch.randn(9, 4), torch.randn(5, 4)
    whole = find(make_index(documents, similarity="dot"), queries, torch.arange(5), 3)
    monkeypatch.setattr("limbeck.evaluate.search.index._ENTRIES", 20)
    parts = find(make_index(documents, similarity="dot"), queries, torch.arange(5), 3)
    assert torch.equal(whole.documents, parts.documents)


def test_of_equal_scores_the_earlier_document_comes_first() -> None:
    found = find(make_index(torch.ones(5, 2), similarity="dot"), torch.ones(1, 2), torch.arange(1), 5)
    assert found.documents.tolist() == [[0, 1, 2, 3, 4]]


def test_what_cannot_be_searched() -> None:
    index = make_index(torch.ones(5, 2), similarity="dot")
    with pytest.raises(DataError, match="needs a projection to their width"):
        index.search(torch.ones(1, 3), 1)
    with pytest.raises(SettingError, match="count=6 is more than the 5 documents"):
        index.search(torch.ones(1, 2), 6)
    with pytest.raises(DataError, match=r"one of the documents is not finite \(place 1\)"):
        make_index(torch.tensor([[0.0], [torch.nan]]), similarity="dot")
    with pytest.raises(SettingError, match="did you mean 'cosine'"):
        make_index(torch.ones(5, 2), similarity="cosin")
    with pytest.raises(SettingError, match="the student scores documents by 'dot' and the teacher by 'cosine'"):
        check_same_similarity("dot", "cosine")
    check_same_similarity("dot", "dot")


def test_student_beside_teacher(data: SearchData) -> None:
    student = found_of(data, [[0, 9, 8], [9, 8, 7], [2, 3, 4]])
    teacher = found_of(data, [[5, 0, 8], [1, 8, 7], [9, 3, 4]])
    found = beside(data, "test", student, teacher, depth=2)
    told = {one.query: (one.both, one.student, one.teacher, one.neither, one.overlap) for one in found.queries}
    assert told == {
        "q0": (("d0",), (), ("d5",), (), 0.5),
        "q1": ((), (), ("d1",), (), 0.5),
        "q2": ((), ("d2",), (), (), 0.5),
    }
    assert (found.kept, found.gained, found.overlap) == (1 / 3, 1, 0.5)
    assert [one.query for one in found.missed()] == ["q0", "q1"]
    with pytest.raises(SettingError, match="at least 4, got 3"):
        beside(data, "test", student, teacher, depth=4)


class Encoder(nn.Module):
    """The mean of the embeddings of a text's bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(258, 5)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = inputs["attention_mask"][..., None]
        found: Tensor = (self.table(inputs["input_ids"]) * mask).sum(dim=1) / mask.sum(dim=1)
        return found


def test_embeddings_come_in_the_order_of_the_texts(data: SearchData) -> None:
    encoder = Encoder().train()
    rows = Tokenising(ByteTokenizer(), 20)(data.documents.texts)
    found = embed(encoder, rows, batch_size=5)
    assert encoder.training
    assert not found.requires_grad
    for place, text in enumerate(data.documents.texts):
        mean = encoder.table(torch.tensor(list(text.encode())[:20])).mean(dim=0)
        assert torch.allclose(found[place], mean, atol=1e-6)


def test_cost_is_measured(data: SearchData) -> None:
    encoder, tokenise = Encoder(), Tokenising(ByteTokenizer(), 20)
    queries, documents = tokenise(data.queries.texts), tokenise(data.documents.texts)
    index = make_index(embed(encoder, documents), similarity="dot")
    options: dict[str, Any] = {"texts": 5, "repeats": 4, "count": 3}
    cost = search_cost(encoder, index, queries, documents, **options)
    assert (cost.parameters, cost.index_bytes) == (258 * 5, DOCUMENTS * 5 * 4)
    assert cost.documents_per_second > 0
    assert 0 < cost.search_milliseconds < cost.query_milliseconds

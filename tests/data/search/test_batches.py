from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.search import (
    Example,
    ExtraQueries,
    PairBatch,
    PairBatches,
    PairTexts,
    SearchData,
    Tokenising,
    read_queries,
    training_pairs,
    with_extra,
)
from limbeck.data.search.batches import excluded
from limbeck.data.search.gather import gather
from limbeck.data.text import ByteTokenizer
from limbeck.errors import DataError, SettingError

from .conftest import DOCUMENTS, JUDGED, QUERIES


def texts_of(data: SearchData, prompt: str = "") -> PairTexts:
    queries, documents = (Tokenising(ByteTokenizer(), 64, prompt) for _ in range(2))
    return PairTexts(queries(data.queries.texts), documents(data.documents.texts))


def batches_of(data: SearchData, **settings: Any) -> PairBatches:
    options = {"batch_size": 2, **settings}
    pairs = training_pairs(data, negatives=options.pop("pool", 2), seed=3)
    return PairBatches(data, pairs, texts_of(data), 7, **options)


def words(batch: PairBatch) -> tuple[list[str], list[str]]:
    """The texts of a batch as its tokens tell them."""
    found = []
    for rows in (batch.student.queries, batch.student.documents):
        pairs = zip(rows.tokens, rows.attention, strict=True)
        found.append([ByteTokenizer().decode(tokens[mask].tolist()) for tokens, mask in pairs])
    return found[0], found[1]


def test_batches_hold_each_query_with_its_documents(data: SearchData) -> None:
    seen = []
    for batch in batches_of(data).epoch(1):
        queries, documents = words(batch)
        assert queries == [data.queries.texts[place] for place in batch.query]
        assert documents == [data.documents.texts[place] for place in batch.document.flatten()]
        assert batch.document.shape == (2, 3)
        assert batch.labels.tolist() == [0, 3]
        assert data.is_relevant(batch.query, batch.document[:, 0]).all()
        assert not data.is_relevant(batch.query[:, None], batch.document[:, 1:]).any()
        assert len(batch) == 2
        assert batch.teacher is None
        seen += list(zip(batch.query.tolist(), batch.document[:, 0].tolist(), strict=True))
    wanted = [(example.query, example.positive) for example in data.training()]
    assert sorted(seen) == sorted(wanted)


def same(one: PairBatch, other: PairBatch) -> bool:
    return (
        torch.equal(one.document, other.document) and torch.equal(one.query, other.query) and words(one) == words(other)
    )


def test_an_epoch_follows_from_seed_number_and_position(data: SearchData) -> None:
    batches = batches_of(data, pool=4, negatives=2)
    whole = list(batches.epoch(3))
    assert len(whole) == len(batches) == 3
    assert all(map(same, whole[1:], batches.epoch(3, start=1)))
    assert not all(map(same, whole, batches.epoch(4)))
    drawn = {tuple(batch.document[0].tolist()) for number in range(9) for batch in batches.epoch(number)}
    assert len(drawn) > len(data.training())


def test_processes_share_a_batch(data: SearchData) -> None:
    whole = list(batches_of(data, batch_size=4).epoch(0))
    parts = [list(batches_of(data, batch_size=4, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    for batch, *both in zip(whole, *parts, strict=True):
        for name in ("query", "document", "labels", "excluded"):
            assert torch.equal(torch.cat([getattr(one, name) for one in both]), getattr(batch, name))


def test_two_tokenizers_read_the_same_texts(data: SearchData) -> None:
    pairs = training_pairs(data)
    batches = PairBatches(data, pairs, texts_of(data), 0, batch_size=2, teacher=texts_of(data, "query: "))
    batch = next(iter(batches.epoch(0)))
    assert batch.teacher is not None
    assert batch.teacher.queries.tokens.shape[1] == batch.student.queries.tokens.shape[1] + len("query: ")
    assert batch.to("cpu").teacher is not None


def slow_excluded(data: SearchData, queries: list[int], documents: list[int], width: int) -> list[list[bool]]:
    answers = {(query, data.documents.texts[data.documents.places[d]]) for query, d, grade in JUDGED if grade > 0}
    found = []
    for row, query in enumerate(queries):
        own = range(row * width, (row + 1) * width)
        # What the row keeps, in the order of preference: its own documents, then those of the others.
        order = [*own, *(column for column in range(len(documents)) if column not in own)]
        kept: set[str] = set()
        wrong = [False] * len(documents)
        for column in order:
            text = data.documents.texts[documents[column]]
            answer = (data.queries.ids[query], text) in answers
            wrong[column] = column != own[0] and (answer or text in kept)
            kept.add(text)
        found.append(wrong)
    return found


@given(st.data())
def test_excluded_are_answers_and_copies(draw: st.DataObject) -> None:
    data = gather("small", DOCUMENTS.items(), QUERIES.items(), {"train": JUDGED})[0]
    width, rows = draw.draw(st.integers(1, 3)), draw.draw(st.integers(1, 4))
    examples = draw.draw(st.lists(st.sampled_from(data.training()), min_size=rows, max_size=rows))
    queries = [example.query for example in examples]
    documents: list[int] = []
    for example in examples:
        others = draw.draw(st.lists(st.integers(0, 7), min_size=width - 1, max_size=width - 1))
        documents += [example.positive, *others]
    labels = torch.arange(rows) * width
    found = excluded(data, torch.tensor(queries), torch.tensor(documents), labels, width)
    assert found.tolist() == slow_excluded(data, queries, documents, width)


def test_own_columns_of_excluded(data: SearchData) -> None:
    batch = next(iter(batches_of(data).epoch(0)))
    assert torch.equal(batch.own_excluded, torch.stack([batch.excluded[0, :3], batch.excluded[1, 3:6]]))


def test_scores_go_with_their_documents() -> None:
    documents = [(f"d{i}", f"text {i}") for i in range(9)]
    plain = gather("s", documents, [("q0", "a"), ("q1", "b")], {"train": [("q0", "d0", 1), ("q1", "d1", 1)]})[0]
    scored = [Example(0, 0, (2, 3, 4), (9.0, 2.0, 3.0, 4.0)), Example(1, 1, (5, 6, 7), (8.0, 5.0, 6.0, 7.0))]
    pairs = training_pairs(plain, scored, negatives=3)
    batches = PairBatches(plain, pairs, texts_of(plain), 0, batch_size=2, negatives=2)
    for number in range(4):
        for batch in batches.epoch(number):
            assert batch.scores is not None
            assert torch.equal(batch.scores[:, 1:], batch.document[:, 1:].float())
            assert torch.equal(batch.scores[:, 0], torch.where(batch.query == 0, 9.0, 8.0))


def test_random_negatives_answer_nothing(data: SearchData) -> None:
    pairs = training_pairs(data, negatives=4, seed=1)
    assert pairs.random == 4 * len(pairs)
    assert pairs.scores is None
    assert not data.is_relevant(pairs.queries[:, None], pairs.pool).any()
    copies = data.documents.originals[pairs.pool]
    assert all(len(set(row)) == 4 for row in copies.tolist())
    assert torch.equal(pairs.pool, training_pairs(data, negatives=4, seed=1).pool)
    assert not torch.equal(pairs.pool, training_pairs(data, negatives=4, seed=2).pool)


def test_pairs_that_cannot_be_made(data: SearchData) -> None:
    with pytest.raises(DataError, match="too few documents that do not answer it"):
        training_pairs(data, negatives=7)
    with pytest.raises(DataError, match="1 of 2 examples have scores"):
        training_pairs(data, [Example(0, 0, (), (1.0,)), Example(1, 1)])
    with pytest.raises(DataError, match="no training examples"):
        training_pairs(data, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 3, "world_size": 2}, "divisible by the number of processes"),
        ({"batch_size": 100}, "more than the 6 examples"),
        ({"negatives": 3}, "more than the 2 in each example's pool"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to world_size - 1"),
    ],
)
def test_settings_that_do_not_fit(data: SearchData, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        batches_of(data, **settings)


def test_tokens_of_other_texts_are_refused(data: SearchData) -> None:
    texts = texts_of(data)
    with pytest.raises(DataError, match="tokenise all texts"):
        PairBatches(data, training_pairs(data), PairTexts(texts.documents, texts.documents), 0, batch_size=2)
    with pytest.raises(SettingError, match="start must be 0 to 3"):
        next(batches_of(data).epoch(0, start=4))


def test_each_batch_has_as_many_extra_queries_and_an_epoch_sees_all(data: SearchData, tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"query": "why is it cold"}\n{"query": "what is wet"}\n{"query": "what is wet"}\n{"query": " "}\n')
    more, places = with_extra(data, read_queries(path))
    assert [more.queries.texts[place] for place in places] == ["why is it cold", "what is wet"]
    pairs = training_pairs(more, negatives=1)
    made = [
        PairBatches(
            more, pairs, texts_of(more), 7, batch_size=2, extra=ExtraQueries(places, 7), rank=rank, world_size=size
        )
        for rank, size in ((0, 1), (0, 2), (1, 2))
    ]
    for whole, first, second in zip(*(batches.epoch(3) for batches in made), strict=True):
        assert whole.extra_query is not None
        assert sorted(whole.extra_query.tolist()) == places.tolist()
        assert whole.extra is not None
        told = [
            ByteTokenizer().decode(row[mask].tolist())
            for row, mask in zip(whole.extra.tokens, whole.extra.attention, strict=True)
        ]
        assert told == [more.queries.texts[place] for place in whole.extra_query]
        assert first.extra_query is not None
        assert second.extra_query is not None
        assert torch.equal(torch.cat([first.extra_query, second.extra_query]), whole.extra_query)


@pytest.mark.parametrize(("content", "told"), [('{"title": "a"}', "no column 'query' or 'text'"), ("", "no")])
def test_a_file_without_queries_is_refused(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text(content)
    with pytest.raises(DataError, match=told):
        read_queries(tmp_path / "asked.jsonl")
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(DataError, match="holds no text"):
        read_queries(tmp_path / "blank.txt")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_queries(tmp_path / "latin.txt")

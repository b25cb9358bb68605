"""A collection divided, generated, in words and as a run is given it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.search import (
    BM25,
    EvalPairBatches,
    Example,
    Limits,
    PairTexts,
    Reading,
    SearchData,
    Tokenising,
    corpus_of,
    divided,
    load_search,
    search_of,
    tokenizer_facts,
    tokenizer_of,
    told,
    training_pairs,
    word_tokenizer,
)
from limbeck.data.search.generated import synonyms
from limbeck.data.text import ByteTokenizer
from limbeck.errors import DataError, SettingError

SMALL = synonyms(train=12, val=3, test=5, meanings=40)


def reading(length: int = 32) -> Reading:
    tokenising = Tokenising(ByteTokenizer(), length)
    return Reading(tokenising, tokenising)


def test_a_setting_names_a_collection() -> None:
    assert search_of("search:somewhere") == "somewhere"
    assert search_of("digits") is None
    data, report = load_search("synonyms(train=12, val=3, test=5, meanings=40)")
    assert data == SMALL
    assert report == told(SMALL)
    with pytest.raises(SettingError, match="did you mean 'meanings'"):
        load_search("synonyms(meaning=40)")
    with pytest.raises(SettingError, match="words"):
        synonyms(words=1)


def test_queries_name_four_of_their_documents_meanings_by_other_words() -> None:
    for query, document in zip(SMALL.queries.texts, SMALL.documents.texts, strict=True):
        asked, held = query.split(), document.split()
        assert len(asked) == len(set(asked)) > 1
        assert not set(asked) & set(held)
        assert {word[:-1] for word in asked} < {word[:-1] for word in held}


def test_parts_that_are_there_stay() -> None:
    assert divided(SMALL, 0, val=0.5, test=0.5) == SMALL


@settings(max_examples=20)
@given(seed=st.integers(0, 50), share=st.floats(0.05, 0.6))
def test_validation_is_held_out_of_training(seed: int, share: float) -> None:
    bare = replace(SMALL, judgements={part: SMALL.judgements[part] for part in ("train", "test")})
    examples = replace(SMALL, judgements={}, examples=SMALL.training())
    for data in (bare, examples):
        found = divided(data, seed, val=share, test=0.3)
        trained = {example.query for example in found.training()}
        held = {SMALL.queries.places[query] for query in found.part("val")}
        assert len(held) == max(1, round(share * 12))
        assert not trained & held
        assert len(trained) + len(held) == 12
        assert found == divided(data, seed, val=share, test=0.3)
    with pytest.raises(DataError, match="too few to hold some out"):
        divided(bare, seed, val=0.99, test=0.0)


def test_a_collection_without_training_is_divided_and_limited() -> None:
    every = {query: judged for part in SMALL.judgements.values() for query, judged in part.items()}
    found = divided(replace(SMALL, judgements={"test": every}), 1, val=0.1, test=0.2, limits=Limits(train=4, test=3))
    assert (len(found.training()), len(found.part("val")), len(found.part("test"))) == (4, 2, 3)
    known = [SMALL.queries.ids[example.query] for example in found.training()]
    assert not {*known} & {*found.part("test"), *found.part("val")}


def test_words_are_the_most_frequent_and_told_in_full() -> None:
    tokenizer = word_tokenizer(["steel STEEL wind", "wind bends", "Steel"], size=6)
    assert tokenizer.encode("Steel wind bends") == [2, 4, 5, 1, 3]
    again = tokenizer_of(tokenizer_facts(tokenizer))
    assert again.encode("the steel") == tokenizer.encode("the steel")
    assert again.pad_token_id == tokenizer.pad_token_id == 0
    with pytest.raises(DataError, match="no tokenizer"):
        tokenizer_of({"definition": "{}", "special": {}, "inputs": []})


def test_a_corpus_has_pairs_and_tokens_of_both() -> None:
    given_ = {"tokenizer": None, "similarity": "cosine", "seed": 0}
    corpus = corpus_of(SMALL, told(SMALL), reading(), reading(8), negatives=2, mining=None, **given_)
    assert {part: len(pairs) for part, pairs in corpus.pairs.items()} == {"train": 12, "val": 3, "test": 5}
    assert corpus.pairs["val"].pool.shape == (3, 2)
    assert corpus.teacher_texts is not None
    assert int(corpus.teacher_texts.documents.lengths.max()) == 8
    same = corpus_of(SMALL, told(SMALL), reading(), None, negatives=0, mining=BM25, **given_)
    assert same.teacher_texts is None


def test_mined_negatives_stand_behind_an_examples_own() -> None:
    pytest.importorskip("bm25s", reason="documents are mined by the package bm25s")
    own = tuple(Example(e.query, e.positive, ((e.positive + 1) % 12,)) for e in SMALL.training())
    data: SearchData = replace(SMALL, examples=own)
    corpus = corpus_of(
        data, told(data), reading(), None, tokenizer=None, similarity="dot", negatives=3, mining=BM25, seed=0
    )
    pool = corpus.pairs["train"].pool
    assert pool[:, 0].tolist() == [example.negatives[0] for example in own]
    assert all(len(set(row)) == 3 for row in pool.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_query_once_in_the_same_batches(world_size: int) -> None:
    pairs, texts = training_pairs(SMALL, negatives=1), reading().of(SMALL)

    def batches(rank: int, world_size: int) -> list[list[int]]:
        made = EvalPairBatches(SMALL, pairs, texts, batch_size=5, teacher=texts, rank=rank, world_size=world_size)
        return [batch.query.tolist() for batch in made]

    parts = [batches(rank, world_size) for rank in range(world_size)]
    assert sorted(batch for part in parts for batch in part) == batches(0, 1)
    assert [len(batch) for batch in batches(0, 1)] == [4, 4, 4]
    (first, *_) = EvalPairBatches(SMALL, pairs, PairTexts(texts.queries, texts.documents), batch_size=5)
    assert torch.equal(first.labels, torch.tensor([0, 2, 4, 6]))
    assert not first.excluded.gather(1, first.labels[:, None]).any()
    assert first.excluded.shape == (4, 8)

"""Encoders on a collection: figures against those of the search itself, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from rich.console import Console
from search_training import QUICK, STUDENT, TEACHER, collection, encoder

from limbeck.cli.figures import tables
from limbeck.config import TrainSettings
from limbeck.data.search import SearchCorpus, told
from limbeck.errors import SettingError
from limbeck.evaluate.bench import Options
from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.evaluate.search import embed
from limbeck.evaluate.suite import evaluate_networks
from limbeck.report.evaluation import evaluation_sections
from limbeck.report.headline import headline
from limbeck.search_feeds import search_corpus

SETTINGS = TrainSettings(data="search:tiny", max_length=QUICK["max_length"], batch_size=8)
ALL = Options(("fidelity", "examples", "cost"))


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Times are taken over moments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.evaluate.cost._SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def corpus() -> SearchCorpus:
    data = collection()
    return search_corpus(data, told(data), SETTINGS, encoder(TEACHER, 1), [encoder(STUDENT, 2)])


@pytest.fixture(scope="module")
def pair(corpus: SearchCorpus) -> Evaluation:
    return evaluate_networks(
        {"small": encoder(STUDENT, 2)},
        corpus,
        teacher=encoder(TEACHER, 1),
        options=ALL,
        settings=SETTINGS,
        batch_size=8,
    )


def test_figures_are_those_of_the_ranks(pair: Evaluation, corpus: SearchCorpus) -> None:
    """Each query has one relevant document, so that every figure follows from its rank."""
    data, ranks = corpus.data, {}
    for who, network in (("small", encoder(STUDENT, 2)), ("teacher", encoder(TEACHER, 1))):
        texts = corpus.student_texts
        queries, documents = (
            torch.nn.functional.normalize(embed(network, rows)) for rows in (texts.queries, texts.documents)
        )
        order = (queries @ documents.T).argsort(dim=1, descending=True).tolist()
        places = data.queries.places
        ranks[who] = [1 + order[places[query]].index(places[query]) for query in data.part("test")]
    assert pair.search is not None
    for who, found in ranks.items():
        told = pair.search[who]
        count = len(found)
        assert (told.queries, told.documents) == (count, 40)
        assert told.mrr_10 == pytest.approx(sum(1 / rank for rank in found if rank <= 10) / count)
        assert told.map == pytest.approx(sum(1 / rank for rank in found) / count)
        assert told.recall_10 == pytest.approx(sum(rank <= 10 for rank in found) / count)
        gains = [1 / torch.tensor(rank + 1.0).log2().item() for rank in found if rank <= 10]
        assert told.ndcg_10 == pytest.approx(sum(gains) / count)
        assert pair.networks[who].accuracy == pytest.approx(sum(rank == 1 for rank in found) / count)
        assert pair.networks[who].top5 == pytest.approx(sum(rank <= 5 for rank in found) / count)
    assert pair.followed is not None
    both = sum(ours <= 10 and theirs <= 10 for ours, theirs in zip(*ranks.values(), strict=True))
    assert pair.followed["small"].kept == pytest.approx(both / sum(rank <= 10 for rank in ranks["teacher"]))
    assert pair.followed["small"].gained == sum(rank <= 10 for rank in ranks["small"]) - both
    assert pair.missed is not None
    lost = sum(ours > 10 >= theirs for ours, theirs in zip(*ranks.values(), strict=True))
    assert len(pair.missed["small"]) == min(12, lost)


def test_costs_and_ratios(pair: Evaluation) -> None:
    assert pair.index is not None
    assert pair.index.ratios is not None
    small, teacher = (pair.index.networks[who] for who in ("small", "teacher"))
    assert (small.width, small.index_bytes, teacher.index_bytes) == (16, 40 * 16 * 4, 40 * 32 * 4)
    ratios = pair.index.ratios["small"]
    assert ratios.index_bytes == 2
    assert ratios.query_ms == pytest.approx(teacher.query_ms / small.query_ms)
    assert (pair.kind, pair.failures, pair.remarks) == ("search", {}, ())
    assert pair.networks["small"].nll is None


def test_the_same_encoder_follows_itself(corpus: SearchCorpus) -> None:
    found = evaluate_networks(encoder(TEACHER, 1), corpus, teacher=encoder(TEACHER, 1), options=ALL, settings=SETTINGS)
    assert found.followed is not None
    own = found.followed["model"]
    assert (own.overlap, own.gained, own.ndcg_kept) == (1, 0, 1)
    assert [own.cka_queries, own.cka_documents, own.cosine_queries, own.cosine_documents] == pytest.approx([1] * 4)
    assert found.missed == {"model": ()}
    assert found.networks["model"].agreement == 1


def test_it_is_written_read_and_shown(pair: Evaluation, tmp_path: Path) -> None:
    pair.write(tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path / "evaluation.json") == pair
    console = Console(width=140, file=io.StringIO())
    for table in tables(pair):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert all(word in said for word in ("queries of test", "nDCG@10", "linear CKA of documents", "index (MiB)"))
    page = {section.name: section for section in evaluation_sections(pair)}
    names = {f"evaluation-{name}" for name in ("overview", "cost", "index", "followed", "missed")}
    assert names <= set(page)
    assert "each among 40 documents" in page["evaluation-overview"].lead
    main, sure = headline((), [pair])
    assert "of the teacher's nDCG@10" in main
    assert "queries of tiny" in sure


def test_a_batch_may_be_larger_than_the_collection(pair: Evaluation, corpus: SearchCorpus) -> None:
    large = SETTINGS.model_copy(update={"batch_size": 128})
    found = evaluate_networks(encoder(STUDENT, 2), corpus, options=Options(()), settings=large)
    assert found.search is not None
    assert pair.search is not None
    assert found.search["model"] == pair.search["small"]


def test_without_a_teacher_what_needs_one_is_told(corpus: SearchCorpus) -> None:
    found = evaluate_networks(encoder(STUDENT, 2), corpus, options=ALL, settings=SETTINGS)
    assert [remark.partition(":")[0] for remark in found.remarks] == ["fidelity is left out", "examples are left out"]
    assert found.index is not None
    assert found.index.ratios is None


def test_what_cannot_be_done_is_refused(corpus: SearchCorpus) -> None:
    with pytest.raises(SettingError, match="'answers' is for text for language models, and this is a collection"):
        evaluate_networks(encoder(STUDENT, 2), corpus, options=Options(("answers",)), settings=SETTINGS)
    with pytest.raises(SettingError, match="split is 'dev', and tiny has no judgements for it; it has train, val"):
        evaluate_networks(encoder(STUDENT, 2), corpus, split="dev", settings=SETTINGS)

"""Teachers of search that score pairs, and negatives that a teacher finds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from search_training import QUICK, STUDENT, TEACHER, collection, distilled, encoder, weights

import limbeck
from limbeck.config import DistillSettings
from limbeck.cross_taps import CrossTapped, GivenScores
from limbeck.data.search import (
    EvalPairBatches,
    Example,
    KnownTexts,
    Reading,
    SearchData,
    TextEmbeddings,
    Tokenising,
    training_pairs,
)
from limbeck.data.search.joint import JointTexts
from limbeck.errors import CacheError, DataError, SettingError, WeightsError
from limbeck.evaluate.reading import read_evaluated
from limbeck.evaluate.search import embed
from limbeck.models.encoders import open_cross_encoder
from limbeck.objectives import parse_objective
from limbeck.pair_taps import SeenPairs
from limbeck.search_mining import teacher_miner
from limbeck.signals import Batch, Signals
from limbeck.tasks.search import SearchTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder as Hugging Face saves it."""
    from transformers import BertConfig, BertForSequenceClassification

    path = tmp_path_factory.mktemp("cross")
    tokenizer = encoder(TEACHER, 1).tokenizer
    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_teacher_that_scores_pairs_is_none_of_an_evaluation(folder: Path) -> None:
    settings = DistillSettings.make({"data": "search:synonyms(train=8, val=4, test=4)"})
    for teacher in (f"cross:{folder}", "scores"):
        with pytest.raises(SettingError, match=f"teacher: {teacher} scores pairs of texts, .* --teacher none"):
            read_evaluated(settings, [STUDENT], teacher)


def seen(negatives: int = 1) -> tuple[SeenPairs, SearchData]:
    data = collection()
    tokenising = Tokenising(encoder(TEACHER, 1).tokenizer, 16)
    reading = Reading(tokenising, tokenising)
    pairs = training_pairs(data, data.training()[:4], negatives=negatives)
    (batch,) = EvalPairBatches(data, pairs, reading.of(data), batch_size=4)
    return SearchTask(False).inputs(Batch(inputs=batch, labels=batch.labels)), data


def test_scores_are_those_of_sentence_transformers(folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    network = open_cross_encoder(folder)
    inputs, data = seen()
    joint = JointTexts(data, network.tokenizer, 32)
    tapped = CrossTapped(network, joint, own=False, batch_size=3)
    said = tapped(inputs).logits
    theirs = CrossEncoder(str(folder), device="cpu", local_files_only=True, max_length=32)
    documents = inputs.document.flatten().tolist()
    for row, query in enumerate(inputs.query.tolist()):
        texts = [(data.queries.texts[query], data.documents.texts[place]) for place in documents]
        wanted = torch.from_numpy(theirs.predict(texts, activation_fn=torch.nn.Identity()))
        open_ = ~inputs.excluded[row]
        assert torch.allclose(said[row][open_], wanted[open_], atol=1e-5)
        assert said[row][~open_].isneginf().all()
    own = CrossTapped(network, joint, own=True, batch_size=3)(inputs).logits
    for row in range(4):
        assert own[row].isfinite().nonzero().flatten().tolist() == [2 * row, 2 * row + 1]
        assert torch.allclose(own[row, 2 * row : 2 * row + 2], said[row, 2 * row : 2 * row + 2], atol=1e-5)


def test_dual_pooling_is_the_mean_over_each_texts_tokens(folder: Path) -> None:
    network = open_cross_encoder(folder)
    inputs, data = seen()
    tapped = CrossTapped(network, JointTexts(data, network.tokenizer, 32), own=True, batch_size=3)
    tapped.pooled = True
    said = tapped(inputs)
    assert said.embedding.shape == (4, 16)
    assert said.documents.shape == (4, 2, 16)
    query, document = data.queries.texts[int(inputs.query[1])], data.documents.texts[int(inputs.document[1, 0])]
    tokens = network.tokenizer(query, document, return_tensors="pt")
    with torch.no_grad():
        scores, states = network.with_states(dict(tokens))
    ids = tokens.sequence_ids(0)
    for text, found in ((0, said.embedding[1]), (1, said.documents[1, 0])):
        by_hand = torch.stack([states[0, place] for place, part in enumerate(ids) if part == text]).mean(dim=0)
        assert torch.allclose(found, by_hand, atol=1e-5)
    assert float(said.logits[1, 2]) == pytest.approx(float(scores), abs=1e-5)


def test_scores_of_a_file_stand_in_their_columns() -> None:
    inputs, _ = seen()
    given = torch.arange(8.0).reshape(4, 2)
    said = GivenScores()(replace(inputs, scores=given)).logits
    for row in range(4):
        assert said[row, 2 * row : 2 * row + 2].tolist() == given[row].tolist()
        assert int(said[row].isfinite().sum()) == 2


@pytest.mark.parametrize("expression", ["listwise_kl(temperature=0.5)", "margin_mse()", "kd(temperature=2)"])
def test_scores_are_compared_among_those_that_the_teacher_gave(expression: str) -> None:
    torch.manual_seed(0)
    ours, theirs, labels = torch.randn(4, 12), torch.randn(4, 3), torch.arange(4) * 3
    own = labels[:, None] + torch.arange(3)
    others = torch.ones(4, 12, dtype=torch.bool).scatter(1, own, False)
    spread = torch.full((4, 12), -torch.inf).scatter(1, own, theirs)
    whole = parse_objective(f"contrastive + {expression}")
    terms = whole(Signals(logits=ours), Signals(logits=spread), Batch(labels[:, None], labels, unscored=others))
    narrow = parse_objective(f"0*contrastive + {expression}")
    alone = narrow(Signals(logits=ours.gather(1, own)), Signals(logits=theirs), Batch(labels[:, None], labels * 0))
    (name,) = alone
    assert float(terms[name]) == pytest.approx(float(alone[name]), abs=1e-6)
    # The label's loss sees the documents of the whole batch.
    in_batch = torch.nn.functional.cross_entropy(ours / 0.05, labels)
    assert float(terms["contrastive"]) == pytest.approx(float(in_batch), rel=1e-5)


def test_a_cross_encoder_scores_each_training_pair_once(folder: Path, tmp_path: Path) -> None:
    given = {"teacher": f"cross:{folder}", "negatives": 2, "mining": "random", "max_length": 32}
    given |= {"objective": "contrastive + listwise_kl(temperature=1) + margin_mse"}
    live = distilled(**given)
    cached = distilled(**given, teacher_cache=tmp_path)
    again = distilled(**given, teacher_cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.safetensors"]
    for other in (cached, again):
        assert all(torch.equal(value, weights(other)[name]) for name, value in weights(live).items())
    assert live.result.test is not None
    assert live.result.test["ndcg_10"] > 0
    assert live.result.teacher_test is None
    with pytest.raises(CacheError, match="max_length '16', and '8'"):
        distilled(**{**given, "max_length": 8}, teacher_cache=tmp_path)


@pytest.mark.parametrize("objective", ["embed_match() + listwise_kl(temperature=1)", "kd(temperature=1)"])
def test_a_cross_encoder_teaches_live_where_it_must(folder: Path, objective: str) -> None:
    pairs = "own" if "embed" in objective else "batch"
    done = distilled(objective, teacher=f"cross:{folder}(pairs='{pairs}')", negatives=1, mining="random", epochs=1)
    assert done.result.test is not None


def scored() -> SearchData:
    """The collection as examples with a teacher's scores."""
    data = collection()
    asked = [example for example in data.training() if example.query % 4 != 3]
    examples = tuple(
        Example(e.query, e.positive, ((e.positive + 1) % 40, (e.positive + 2) % 40), (3.0, 1.0, -1.0)) for e in asked
    )
    return replace(data, examples=examples)


def test_scores_of_examples_teach_without_a_teacher() -> None:
    done = distilled("contrastive + margin_mse", teacher="scores", data=scored(), negatives=2)
    assert done.result.teacher == "scores"
    assert done.result.teacher_test is None
    assert done.result.test is not None
    # Margins of 2 and 4 are what the student is asked for: with more training it comes nearer.
    near = distilled("margin_mse", teacher="scores", data=scored(), negatives=2, epochs=1, lr=1e-6)
    assert any(not torch.equal(value, weights(near)[name]) for name, value in weights(done).items())


def test_negatives_are_what_the_teacher_finds() -> None:
    teacher, data = encoder(TEACHER, 1), collection()
    reading = Tokenising(teacher.tokenizer, 16)
    rows = [embed(teacher, reading(texts.texts)) for texts in (data.queries, data.documents)]
    scores = rows[0] @ rows[1].T
    texts = Reading(reading, reading).of(data)
    known = KnownTexts("teacher", teacher, texts, "cosine", TextEmbeddings(*rows))
    examples = data.training()
    for margin in (None, 0.05):
        mined = teacher_miner(known, margin, None).mine(data, examples, 3).examples
        for example, found in zip(examples, mined, strict=True):
            row = scores[example.query].clone()
            row[example.positive] = -torch.inf
            if margin is not None:
                row[row > float(scores[example.query, example.positive]) - margin + 1e-6] = -torch.inf
            wanted = row.topk(3)
            assert found.negatives == tuple(wanted.indices[wanted.values.isfinite()].tolist())
    done = distilled(teacher=teacher, mining="teacher", negatives=2, mining_margin=0.01, epochs=1)
    assert done.result.test is not None


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"teacher": "cross:nowhere", "negatives": 1}, WeightsError, "no folder 'nowhere' with a cross-encoder"),
        ({"teacher": "cross:FOLDER"}, SettingError, "give --negatives, or pairs='batch'"),
        ({"teacher": "cross:FOLDER(pair='batch')", "negatives": 1}, SettingError, "did you mean 'pairs'"),
        (
            {"teacher": "cross:FOLDER", "negatives": 1, "documents": "teacher"},
            SettingError,
            "no documents to be searched",
        ),
        ({"teacher": "mean(cross:FOLDER, scores)", "negatives": 1}, SettingError, "stands alone"),
        ({"teacher": "scores", "negatives": 1}, DataError, "not every example of tiny has scores"),
        ({"teacher": "scores", "negatives": 3, "data": scored()}, DataError, "fewer than 3 negatives"),
        ({"mining": "teacher"}, SettingError, "give --negatives too"),
        ({"mining_share": 0.9}, SettingError, "goes with mining=teacher"),
        (
            {"mining": "teacher", "teacher": "cross:FOLDER", "negatives": 1},
            SettingError,
            "an encoder; take mining=bm25",
        ),
    ],
)
def test_what_does_not_fit_is_said(settings: dict[str, Any], error: type[Exception], told: str, folder: Path) -> None:
    if "teacher" in settings:
        settings = {**settings, "teacher": settings["teacher"].replace("FOLDER", str(folder))}
    with pytest.raises(error, match=told):
        distilled(**settings)


def test_a_network_that_is_no_cross_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(WeightsError, match="must be a network for sequence classification, and holds BertModel"):
        open_cross_encoder(tmp_path / "other")


def test_a_cross_encoder_is_no_student() -> None:
    with pytest.raises(SettingError, match="student: cross:anywhere scores pairs of texts; it can teach"):
        limbeck.train("cross:anywhere", "search:synonyms(train=8, val=4, test=4)", epochs=1)


def test_training_alone_mines_with_no_teacher() -> None:
    quick = {name: value for name, value in QUICK.items() if name != "allow_weak_teacher"}
    with pytest.raises(SettingError, match="there is none; take bm25 or random"):
        limbeck.train(encoder(STUDENT, 2), collection(), mining="teacher", negatives=1, **quick)

"""Runs on search: the loop, checkpoints, comparison and report that images have, with queries and documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from search_training import QUICK, STUDENT, TEACHER, collection, distilled, encoder, weights

import limbeck
from limbeck.config import ExportSettings
from limbeck.data.search import SearchData, divided, load_search
from limbeck.engine.callbacks import Callback
from limbeck.errors import CacheError, DataError, SettingError, WeightsError
from limbeck.evaluate.search import embed, find, make_index, score
from limbeck.export import run_export
from limbeck.modalities.search import reading_of
from limbeck.models.encoders import open_encoder
from limbeck.report.table import markdown

ALONE = {name: value for name, value in QUICK.items() if name != "allow_weak_teacher"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as a folder of BEIR's, without judgements for training."""
    path = tmp_path_factory.mktemp("data") / "tiny"
    (path / "qrels").mkdir(parents=True)
    data = collection()
    for name, texts in (("corpus", data.documents), ("queries", data.queries)):
        rows = [{"_id": i, "title": "", "text": text} for i, text in zip(texts.ids, texts.texts, strict=True)]
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(len(data.queries)))
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return path


@pytest.mark.parametrize("objective", ["ce + kd + margin_mse", "embed_distill", "icd_search"])
def test_objectives_teach_encoders(objective: str) -> None:
    done = distilled(objective, negatives=1, epochs=1)
    test = done.result.test
    assert test is not None
    assert {"ndcg_10", "mrr_10", "recall_100", "map", "agreement", "kl"} <= set(test)
    assert done.result.teacher_test is not None
    assert all(0 <= done.result.teacher_test[name] <= 1 for name in ("ndcg_10", "mrr_10", "recall_100", "map"))


def test_figures_are_those_of_a_search_by_hand() -> None:
    data = collection()
    done = distilled(data=data)
    student = done.student
    reading = reading_of(student, QUICK["max_length"])  # type: ignore[arg-type]
    texts = reading.of(data)
    places = torch.tensor([data.queries.places[query] for query in data.part("test")])
    index = make_index(embed(student, texts.documents), similarity="cosine")
    found = find(index, embed(student, texts.queries.some(places)), places, len(data.documents))
    by_hand = score(data, "test", found, ["nDCG@10", "AP"]).means
    assert done.result.test is not None
    assert done.result.test["ndcg_10"] == pytest.approx(by_hand["nDCG@10"], abs=1e-6)
    assert done.result.test["map"] == pytest.approx(by_hand["AP"], abs=1e-6)


def test_a_student_learns_to_search() -> None:
    untrained, trained = (
        limbeck.train(encoder(STUDENT, 2), collection(), **ALONE | own)
        for own in ({"epochs": 1, "lr": 1e-9}, {"epochs": 10, "lr": 0.01})
    )
    assert trained.result.objective == "contrastive()"
    # Training pairs are searched, since forty documents teach nothing of other words.
    data, found = collection(), []
    for done in (untrained, trained):
        texts = reading_of(done.student, QUICK["max_length"]).of(data)  # type: ignore[arg-type]
        places = torch.tensor([data.queries.places[query] for query in data.part("train")])
        index = make_index(embed(done.student, texts.documents), similarity="cosine")
        result = find(index, embed(done.student, texts.queries.some(places)), places, len(data.documents))
        found.append(score(data, "train", result, ["nDCG@10"]).means["nDCG@10"])
    assert found[1] > found[0]


class _Stop(Callback):
    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step >= 4:
            loop.save()
            raise KeyboardInterrupt


def test_a_run_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    given = {"negatives": 2, "mining": "random", "runs_dir": tmp_path, "log_steps": 1, "batch_size": 6}
    whole = distilled("embed_distill", name="whole", **given)
    with pytest.raises(KeyboardInterrupt):
        distilled("embed_distill", name="stopped", callbacks=[_Stop()], **given)
    resumed = distilled("embed_distill", name="stopped", resume=True, **given)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert resumed.result.test == whole.result.test


def test_runs_by_name_keep_tokenizer_encoder_and_what_was_found(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    quick = {**ALONE, "runs_dir": tmp_path}
    data = f"search:{folder}"
    limbeck.train(TEACHER, data, name="teacher", **quick)
    teacher = str(tmp_path / "teacher")
    done = limbeck.distill(
        teacher, STUDENT, data, "embed_distill", name="student", negatives=1, allow_weak_teacher=True, **quick
    )
    home = tmp_path / "student"
    told = json.loads((home / "search.json").read_text())
    assert set(told["figures"]) == {"student", "teacher"}
    assert len(told["queries"]) == 8
    assert set(told["queries"][0]) >= {"text", "ndcg_10", "student_alone", "teacher_alone"}
    assert done.result.test is not None
    assert told["figures"]["student"]["ndcg_10"] == done.result.test["ndcg_10"]

    text = collection().documents.texts[3]
    loaded = SentenceTransformer(str(home / "encoder"), device="cpu", local_files_only=True)
    ours = open_encoder(home / "encoder")
    rows = reading_of(ours, 16).documents([text])
    assert torch.allclose(torch.from_numpy(loaded.encode_document([text])), embed(done.student, rows), atol=1e-6)
    assert "SentenceTransformer" in (home / "README.md").read_text()
    # The run is a teacher itself, with the words that it learnt.
    again = limbeck.distill(str(home), STUDENT, data, "listwise_kl", allow_weak_teacher=True, **quick)
    assert again.result.teacher_test is not None
    assert again.result.teacher_test["ndcg_10"] == pytest.approx(done.result.test["ndcg_10"], abs=1e-6)


def test_layers_of_a_folder_are_kept_and_other_tokens_are_the_teachers_own(tmp_path: Path) -> None:
    data = collection()
    home = encoder(TEACHER, 1).save(tmp_path / "encoder")
    half = SearchData("half", data.documents, data.queries, data.judgements)
    other = encoder(TEACHER, 3, SearchData("half", type(data.documents)(("a",), ("w1 w2 w3",)), data.queries, {}))
    done = limbeck.distill(other, f"hf:{home}(keep_layers=[1])", half, "contrastive + listwise_kl", **QUICK)
    assert done.result.student_parameters < sum(p.numel() for p in encoder(TEACHER, 1).parameters())
    kept = open_encoder(home).state_dict()
    names = [name for name in done.student.state_dict() if "layer." in name]
    assert names
    assert all("layer.0." in name for name in names)
    assert any(".layer.1." in name for name in kept)


def test_students_are_compared_by_what_they_find(folder: Path) -> None:
    found = limbeck.compare(
        encoder(TEACHER, 1),
        STUDENT,
        f"search:{folder}",
        seeds=2,
        **{**QUICK, "epochs": 1},
    )
    rows = {row.label: row for row in found.rows}
    # What is usual for search, since nothing is named: kd's temperature is not for cosines.
    usual = {"student alone", "contrastive + listwise_kl", "contrastive + embed_match", "embed_distill"}
    assert usual == {row.label for row in found.rows if not row.is_teacher}
    assert all(row.ndcg is not None for row in rows.values())
    row = rows["contrastive + listwise_kl"]
    assert row.difference is not None
    assert row.ndcg is not None
    alone = rows["student alone"].ndcg
    assert alone is not None
    assert row.difference.mean == pytest.approx(row.ndcg.mean - alone.mean, abs=1e-9)
    assert "nDCG@10 %" in markdown(found.rows)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": "ce + fitnet"}, "the objective needs features"),
        ({"accumulation": 2}, "would change what is learnt"),
        ({"policy": "student"}, "for models that write"),
        ({"label_noise": 0.5}, "label_noise is for other data"),
        ({"student": "hf:FOLDER(kep_layers=[0])"}, "did you mean 'keep_layers'"),
        ({"student": "hf:nowhere"}, "there is no folder"),
        ({"student": torch.nn.Linear(2, 2)}, "is no encoder of texts"),
        ({"batch_size": 100}, "more than the 24 examples"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(settings: dict[str, Any], told: str) -> None:
    given = {"objective": "contrastive", **settings}
    with pytest.raises((SettingError, WeightsError), match=told):
        distilled(**given)


def test_similarities_of_teacher_and_student_must_be_one() -> None:
    student = encoder(STUDENT, 2)
    student.model.similarity_fn_name = "dot"
    with pytest.raises(SettingError, match="scores documents by 'dot' and the teacher by 'cosine'"):
        distilled(student=student)


def test_the_best_epoch_is_that_of_the_best_search(tmp_path: Path) -> None:
    done = distilled(validate_by="ndcg", epochs=3, name="judged", runs_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "judged" / "metrics.jsonl").read_text().splitlines()]
    found = [line["ndcg_10"] for line in lines if line["split"] == "validation"]
    assert done.result.judged == {"ndcg_10": max(found)}
    assert done.result.best_epoch == 1 + found.index(max(found))
    data = collection()
    reading = reading_of(done.student, QUICK["max_length"])  # type: ignore[arg-type]
    texts = reading.of(data)
    places = torch.tensor([data.queries.places[query] for query in data.part("val")])
    index = make_index(embed(done.student, texts.documents), similarity="cosine")
    searched = find(index, embed(done.student, texts.queries.some(places)), places, len(data.documents))
    assert score(data, "val", searched, ["nDCG@10"]).means["nDCG@10"] == pytest.approx(max(found))


def test_only_a_collection_with_validation_is_judged_by_a_search() -> None:
    with pytest.raises(SettingError, match="validate_by=ndcg is for collections that are searched, not for images"):
        limbeck.train("convnet_tiny", "digits", validate_by="ndcg")
    data = collection()
    data = SearchData(
        data.name, data.documents, data.queries, {part: data.judgements[part] for part in ("train", "test")}
    )
    with pytest.raises(SettingError, match="validate_by: tiny has no queries for validation"):
        distilled(data=data, validate_by="ndcg", val_fraction=0.0)


def test_a_student_of_queries_alone_searches_the_teachers_documents(folder: Path, tmp_path: Path) -> None:
    quick = {**ALONE, "runs_dir": tmp_path}
    data, student = f"search:{folder}", "bert(layers=1, width=16, heads=2, dropout=0, project=32)"
    limbeck.train(TEACHER, data, name="teacher", **quick)
    teacher = str(tmp_path / "teacher")
    given = {"documents": "teacher", "allow_weak_teacher": True, "teacher_cache": tmp_path / "cache", **quick}
    done = limbeck.distill(teacher, student, data, "embed_distill", name="queries", cache_dtype="fp32", **given)
    home = tmp_path / "queries"
    theirs, ours = open_encoder(tmp_path / "teacher" / "encoder"), open_encoder(home / "encoder")
    split = divided(load_search(folder)[0], 0, val=0.1, test=0.2)
    places = torch.tensor([split.queries.places[query] for query in split.part("test")])
    documents = embed(theirs, reading_of(theirs, 16).documents(split.documents.texts))
    queries = embed(ours, reading_of(ours, 16).queries(split.queries.texts).some(places))
    found = find(make_index(documents, similarity="cosine"), queries, places, len(split.documents))
    assert done.result.test is not None
    assert done.result.test["ndcg_10"] == pytest.approx(
        score(split, "test", found, ["nDCG@10"]).means["nDCG@10"], abs=1e-6
    )
    assert json.loads((home / "search.json").read_text())["documents_of"].startswith("bert(")
    assert "this encoder is of queries alone" in (home / "README.md").read_text()
    exported = ExportSettings.make({"model": str(home), "output": tmp_path / "deploy", "to": ["folder"]})
    said: list[str] = []
    run_export(exported, say=said.append)
    assert "it encodes queries alone, which search the documents of its teacher, bert(" in "\n".join(said)
    deployed = (tmp_path / "deploy" / "README.md").read_text()
    assert "It encodes queries alone.** They are searched for among the documents of its teacher, `bert(" in deployed
    assert "encoder.encode_query(" in deployed
    with pytest.raises(SettingError, match="learnt to encode queries alone"):
        limbeck.distill(str(home), STUDENT, data, "listwise_kl", allow_weak_teacher=True, **quick)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"documents": "teacher"}, "16 numbers and the documents of Encoder 32.*project=32"),
        ({"teacher_cache": "cache", "cache_logits": "topk(5)"}, "neither logits nor feature maps"),
    ],
)
def test_what_does_not_fit_of_a_teachers_texts_is_said(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    if "teacher_cache" in settings:
        settings = {**settings, "teacher_cache": tmp_path}
    with pytest.raises(SettingError, match=told):
        distilled(**settings)


class _Counted(torch.nn.Module):
    """Counts the texts that go through an encoder."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.texts = 0
        encoder.register_forward_pre_hook(self)

    def __call__(self, module: torch.nn.Module, inputs: Any) -> None:
        self.texts += len(inputs[0]["input_ids"])


def test_a_teacher_reads_each_text_once_and_teaches_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, data = encoder(TEACHER, 1), collection()
    counted = _Counted(teacher)
    distilled("embed_distill", teacher=teacher, negatives=1, epochs=1)
    once, counted.texts = counted.texts, 0
    read = weights(distilled("embed_distill", teacher=teacher, negatives=1, epochs=4))
    assert counted.texts == once
    counted.texts = 0
    # What it says live, at every step.
    monkeypatch.setattr("limbeck.search_teaching.read_texts", lambda *given, **settings: None)
    live = weights(distilled("embed_distill", teacher=teacher, negatives=1, epochs=4))
    assert counted.texts > once + len(data.queries) + len(data.documents)
    for name, value in live.items():
        assert torch.allclose(read[name], value, atol=1e-5), name


def test_a_cache_of_texts_is_read_and_one_of_something_else_refused(tmp_path: Path) -> None:
    given = {"teacher_cache": tmp_path / "cache", "epochs": 1}
    teacher = encoder(TEACHER, 1)
    first = distilled(teacher=teacher, **given)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["embeddings.safetensors"]
    counted = _Counted(teacher)
    again = distilled(teacher=teacher, cache_check=3, **given)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(first).items())
    spared, counted.texts = counted.texts, 0
    distilled(teacher=teacher, epochs=1)
    # All forty queries and documents, but three of each that are compared.
    assert spared == counted.texts - 2 * 40 + 2 * 3
    with pytest.raises(CacheError, match="holds the embeddings of something else: teacher was"):
        distilled(teacher=encoder(TEACHER, 7), **given)
    with pytest.raises(CacheError, match="document max_length was '16' and is '8'"):
        distilled(teacher=teacher, max_length=8, **given)
    # Queries that are none of the collection's lie beside its texts, which are not read again for them.
    asked, written = tmp_path / "asked.txt", (tmp_path / "cache" / "embeddings.safetensors").stat().st_mtime_ns
    asked.write_text("w1 w2\nw3")
    extra = {**given, "extra_queries": asked, "objective": "embed_match(extra=1)", "cache_check": 3}
    counted.texts = 0
    first = distilled(teacher=teacher, **extra)
    once, counted.texts = counted.texts, 0
    again = distilled(teacher=teacher, **extra)
    assert counted.texts == once
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(first).items())
    assert {path.stem for path in (tmp_path / "cache").iterdir()} == {"embeddings", "embeddings-extra"}
    assert (tmp_path / "cache" / "embeddings.safetensors").stat().st_mtime_ns == written
    asked.write_text("w4 w5\nw6")
    with pytest.raises(CacheError, match=r"embeddings-extra.safetensors' holds .* something else: extra was '2 texts"):
        distilled(teacher=teacher, **extra)
    (tmp_path / "cache" / "embeddings.safetensors").write_bytes(b"nothing")
    with pytest.raises(CacheError, match="damaged"):
        distilled(teacher=teacher, **given)


def test_a_batch_in_chunks_is_the_plain_batch() -> None:
    given = {"negatives": 1, "batch_size": 24, "optimizer": "sgd", "lr": 0.1}
    plain = distilled("embed_distill", **given)
    chunked = distilled("embed_distill", embed_chunk=5, **given)
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(chunked)[name], atol=1e-6), name


def test_queries_without_judgements_are_led_to_where_the_teacher_puts_them(tmp_path: Path) -> None:
    texts = ["w1 w2", "w3 w4", "w5 w6", "w7 w8", "w9 w10", "w1 w2"]
    path = tmp_path / "asked.txt"
    path.write_text("\n".join(texts) + "\n\n")
    teacher = encoder(STUDENT, 1)
    given: dict[str, Any] = {"teacher": teacher, "extra_queries": path}
    few, many = (
        distilled("embed_match(queries=0, documents=0, extra=1)", **{**given, "epochs": epochs, "lr": rate})
        for epochs, rate in ((1, 1e-9), (15, 0.01))
    )
    rows = reading_of(teacher, 16).queries(texts[:5])
    apart = [float((embed(done.student, rows) - embed(teacher, rows)).norm(dim=1).mean()) for done in (few, many)]
    assert apart[1] < 0.8 * apart[0]
    with pytest.raises(SettingError, match="give a file of them with extra_queries"):
        distilled("embed_match(extra=1)")
    with pytest.raises(DataError, match="there is no file"):
        distilled(extra_queries=tmp_path / "nothing.txt")

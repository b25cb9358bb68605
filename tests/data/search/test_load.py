from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.data.search import Example, SearchData, load_search, split_queries
from limbeck.data.search.gather import gather
from limbeck.errors import DataError, SettingError

from .conftest import DOCUMENTS, JUDGED, QUERIES, write_jsonl, write_lines


def test_a_beir_folder(beir: Path) -> None:
    data, report = load_search(beir)
    assert data.name == "small"
    assert dict(zip(data.documents.ids, data.documents.texts, strict=True)) == DOCUMENTS
    assert dict(zip(data.queries.ids, data.queries.texts, strict=True)) == QUERIES
    assert {part: set(rows) for part, rows in data.judgements.items()} == {
        "train": {"q1", "q2"},
        "val": {"q3"},
        "test": {"q4"},
    }
    assert data.part("train")["q1"] == {"d1": 1, "d8": 2}
    assert report.skipped == {}
    assert str(report) == "8 documents, 4 queries; judgements: val 1, test 2, train 4"


def test_titles_come_before_texts(beir: Path) -> None:
    write_jsonl(beir / "corpus.jsonl", [{"_id": "d3", "title": "Steel", "text": "a slab"}])
    (beir / "qrels" / "dev.tsv").unlink()
    (beir / "qrels" / "train.tsv").unlink()
    assert load_search(beir)[0].documents.texts == ("Steel a slab",)


def test_nanobeir_as_folders_of_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet files need pyarrow")
    import pyarrow

    rows: dict[str, dict[str, list[Any]]] = {
        "corpus": {"_id": ["a", "b"], "text": ["one", "two"]},
        "queries": {"_id": ["x"], "text": ["which"]},
        "qrels": {"query-id": ["x"], "corpus-id": ["b"]},
    }
    for name, columns in rows.items():
        (tmp_path / name).mkdir()
        parquet.write_table(pyarrow.table(columns), tmp_path / name / "train-00000-of-00001.parquet")
    data, report = load_search(tmp_path)
    assert data.judgements == {"test": {"x": {"b": 1}}}
    assert "part test" in report.notes[0]


def test_judgements_as_trec_has_them(beir: Path) -> None:
    for path in (beir / "qrels").iterdir():
        path.unlink()
    write_lines(beir / "qrels" / "test.tsv", ["q1 0 d1 2", "q1 0 d3 0", "q2 Q0 d2 1"])
    assert load_search(beir)[0].judgements == {"test": {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}}


def test_what_is_left_out_is_counted_and_named(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "d9", "title": " ", "text": ""}) + "\n")
        file.write(json.dumps({"_id": "d1", "text": DOCUMENTS["d1"]}) + "\n")
    with (beir / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "q8", "text": "nobody judged this"}) + "\n")
        file.write(json.dumps({"_id": "q9", "text": "nothing answers this"}) + "\n")
        file.write(json.dumps({"_id": "q10", "text": ""}) + "\n")
    with (beir / "qrels" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("q4\td99\t1\nq99\td1\t1\nq4\td9\t1\nq9\td2\t0\nq10\td2\t1\n")
    data, report = load_search(beir)
    assert len(data.documents) == 8
    assert set(data.judgements["test"]) == {"q4"}
    assert report.skipped == {
        "documents without text": ("d9",),
        "ids that come twice, with the same text": ("d1",),
        "queries without text": ("q10",),
        "judgements of unknown documents": ("d99",),
        "judgements of unknown queries": ("q99",),
        "judgements of documents or queries without text": ("d9", "q10"),
        "queries without judgements": ("q8",),
        "queries without a relevant document": ("q9",),
    }
    assert "left out: 1 queries without judgements (q8)" in report.lines()


def test_queries_of_two_parts_and_parts_of_other_names_are_told(beir: Path) -> None:
    for part in ("test", "tst"):
        write_lines(beir / "qrels" / f"{part}.tsv", ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q4\td3\t1"])
    assert load_search(beir)[1].notes == (
        "judgements of 'tst' are not used: the parts are train, dev (or val) and test",
        "1 queries of test are in train too (q1)",
    )
    (beir / "qrels" / "train.tsv").unlink()
    assert load_search(beir)[1].notes == ()


def test_an_id_with_two_texts_is_an_error(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "d1", "text": "another"}) + "\n")
    with pytest.raises(DataError, match="document 'd1' comes twice, with different texts"):
        load_search(beir)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"text": "no id"}\n', r"row 1 has none of the columns _id, id"),
        ("corpus.jsonl", '{"_id": "d1"}\n', r"has no column 'text'; it has _id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq4\td3\thigh\n", r"a grade must be a whole number, got 'high'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq4\td3\t0.5\n", r"a grade must be a whole number, got '0.5'"),
        ("qrels/test.tsv", "query-id\tscore\nq4\t1\n", r"none of the columns corpus-id"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq4\td3\t1\nq4\td3\t2\n",
            r"'d3' is judged twice for query 'q4'",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq4\td3\t0\n", r"no query of test has a relevant document"),
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', r"has no queries with text"),
    ],
)
def test_damaged_folders_say_where(beir: Path, file: str, text: str, message: str) -> None:
    (beir / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_search(beir)


@pytest.mark.parametrize("file", ["corpus.jsonl", "qrels/test.tsv"])
def test_files_in_another_encoding_are_named(beir: Path, file: str) -> None:
    (beir / file).write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{file}' is not UTF-8"):
        load_search(beir)


def test_what_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        load_search(tmp_path / "absent")
    with pytest.raises(DataError, match=r"has no 'corpus': a BEIR folder holds corpus.jsonl"):
        load_search(tmp_path)


SMART_DOCUMENTS = """.I 1
.T
Wings
.A
somebody
.W
that bend
in the wind
.I 2
.T
Slabs
.W
of steel
.I 3
.T
.A
.B
.W
"""
SMART_QUERIES = ".I 001\n.W\nwhat bends\n.I 004\n.W\nwhat is of\nsteel\n"


def smart(folder: Path, judgements: str, ending: str = ".REL") -> Path:
    (folder / "S.ALL").write_text(SMART_DOCUMENTS, encoding="latin-1")
    (folder / "S.QRY").write_text(SMART_QUERIES, encoding="latin-1")
    (folder / f"S{ending}").write_text(judgements, encoding="latin-1")
    return folder


def test_smart_with_queries_by_position(tmp_path: Path) -> None:
    data, report = load_search(smart(tmp_path, "1 1 2 \r\n2 2 3\r\n1 2 -1\r\n2 3 1\r\n", "qrel"))
    assert data.documents.texts == ("Wings that bend in the wind", "Slabs of steel")
    assert data.queries.texts == ("what bends", "what is of steel")
    assert data.judgements == {"test": {"1": {"1": 1, "2": 0}, "4": {"2": 1}}}
    assert report.skipped["judgements of documents or queries without text"] == ("3",)
    assert "by position" in report.notes[0]


def test_smart_with_queries_by_id(tmp_path: Path) -> None:
    data, report = load_search(smart(tmp_path, "     4     2\t0\t0.000000\n"))
    assert data.judgements == {"test": {"4": {"2": 1}}}
    assert report.skipped["queries without judgements"] == ("1",)
    assert not report.notes


@pytest.mark.parametrize(("judgements", "message"), [("9 1\n", "query 9 is judged"), ("one 1\n", "line 1, must begin")])
def test_smart_judgements_that_fit_nothing(tmp_path: Path, judgements: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_search(smart(tmp_path, judgements))


def test_examples_from_jsonl(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "positive": "yes", "negatives": ["no", "maybe"], "scores": [3, 1.5, 0]},
        {"query": "a", "positive": "maybe", "negatives": [" ", "no"], "scores": [2, 0, 1]},
        {"query": "", "positive": "lost", "negatives": [], "scores": [1]},
    ]
    write_jsonl(tmp_path / "t.jsonl", rows)
    data, report = load_search(tmp_path / "t.jsonl")
    assert data.documents.texts == ("yes", "no", "maybe")
    assert data.examples == (Example(0, 0, (1, 2), (3.0, 1.5, 0.0)), Example(0, 2, (1,), (2.0, 1.0)))
    assert data.training() == data.examples
    assert report.skipped == {"examples without a query or a positive": ("2",), "negatives without text": ("1",)}
    assert "2 training examples" in str(report)


def test_examples_from_tsv(tmp_path: Path) -> None:
    write_lines(tmp_path / "named.tsv", ["question\tanswer\tnegative_1\tnegative_2", "a\tb\tc\td"])
    write_lines(tmp_path / "bare.tsv", ["a\tb\tc\td"])
    wanted = load_search(tmp_path / "named.tsv")[0]
    assert wanted.examples == (Example(0, 0, (1, 2)),)
    assert load_search(tmp_path / "bare.tsv", header=False)[0].documents == wanted.documents


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a"}, "has no column 'positive'"),
        ({"query": None, "positive": "d"}, "row 1: the column 'query' is empty"),
        ({"query": "a", "positive": 3}, "must be texts, got 3"),
        ({"query": "a", "positive": ["b", "c"]}, "has one positive, got 2"),
        ({"query": "a", "positive": "b", "scores": [1, 2]}, "a finite score for each of its 1 documents"),
        ({"query": "a", "positive": "b", "scores": ["x"]}, "a finite score for each of its 1 documents"),
        ({"query": " ", "positive": "b"}, "no example is left"),
    ],
)
def test_examples_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_jsonl(tmp_path / "t.jsonl", [row])
    with pytest.raises(DataError, match=message):
        load_search(tmp_path / "t.jsonl")


def many(count: int) -> SearchData:
    queries = [(f"q{i}", f"query {i}") for i in range(count)]
    documents = [(f"d{i}", f"document {i}") for i in range(count)]
    return gather("many", documents, queries, {"test": [(f"q{i}", f"d{i}", 1) for i in range(count)]})[0]


def test_queries_are_divided_by_the_seed() -> None:
    data = many(40)
    divided = split_queries(data, seed=1, val=0.1, test=0.25)
    parts = {part: set(rows) for part, rows in divided.judgements.items()}
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 26, "val": 4, "test": 10}
    assert set().union(*parts.values()) == set(data.judgements["test"])
    assert split_queries(data, seed=1, val=0.1, test=0.25) == divided
    assert split_queries(data, seed=2, val=0.1, test=0.25) != divided
    assert {example.query for example in divided.training()} == {data.queries.places[name] for name in parts["train"]}
    assert set(split_queries(data, seed=1, val=0, test=0.5).judgements) == {"train", "test"}


def test_queries_that_cannot_be_divided(data: SearchData) -> None:
    with pytest.raises(SettingError, match="their sum is 1"):
        split_queries(data, 0, val=0.5, test=0.5)
    with pytest.raises(DataError, match="too few"):
        split_queries(many(2), 0)
    with pytest.raises(SettingError, match="unknown part 'tets'; did you mean 'test'"):
        many(2).part("tets")


def test_a_relevant_copy_is_relevant(data: SearchData) -> None:
    queries, documents = data.queries.places, data.documents.places
    found = {
        (query, document)
        for query in QUERIES
        for document in DOCUMENTS
        if data.is_relevant(*_tensors(queries[query], documents[document])).item()
    }
    assert found == {(query, document) for query, document, grade in JUDGED if grade > 0} | {("q1", "d4")}


def _tensors(query: int, document: int) -> tuple[Any, Any]:
    import torch

    return torch.tensor(query), torch.tensor(document)

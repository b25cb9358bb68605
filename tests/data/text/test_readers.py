from __future__ import annotations

import sys
from pathlib import Path

import pytest

from limbeck.data.text import load_text
from limbeck.errors import DataError, MissingExtraError

from .test_load import ROWS, write, write_rows


def test_parquet_gives_the_same_examples(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data.parquet")
    data, other = (load_text(path) for path in (tmp_path / "data.parquet", write_rows(tmp_path / "data.jsonl", ROWS)))
    assert data.train == other.train
    assert data.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_folder_of_save_to_disk(tmp_path: Path, dictionary: bool) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made = datasets.DatasetDict({"train": table, "validation": table}) if dictionary else table
    made.save_to_disk(str(tmp_path / "saved"))
    for spec in (str(tmp_path / "saved"), f"hf:{tmp_path / 'saved'}"):
        data = load_text(spec, val_fraction=0)
        assert (data.classes, [example.label for example in data.train]) == (("no", "yes"), [1, 0])
        assert (data.val is not None) is dictionary


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[text\]'"):
        load_text(path)


BROKEN = [
    ("data.jsonl", '{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    ("data.jsonl", "[1]\n", "line 1 must be a JSON object"),
    ("data.jsonl", "\n", "holds no rows"),
    ("data.jsonl", '{"a": 1}\n', "has the columns a, among which are no usual names"),
    ("data.jsonl", '{"text": ["a"]}\n', "row 1: the column 'text' must hold text, got list"),
    ("data.jsonl", '{"messages": [{"role": "user"}]}\n', "needs a role and a content"),
    ("data.jsonl", '{"messages": "Hi"}\n', "must hold a list of messages"),
    ("data.json", '{"text": "a"}', "must be a JSON list"),
    ("data.csv", "text,label\na\n", "row 2, has 1 cells instead of 2"),
    ("data.csv", 'text\n"a\n', "no valid CSV"),
    ("data.csv", "text,text\na,b\n", "names a column twice"),
    ("data.parquet", "no parquet", "cannot be read as Parquet"),
    ("data.txt", " \n", "holds no rows"),
    ("data.doc", "text", "must end in .jsonl"),
]


@pytest.mark.parametrize(("name", "text", "told"), BROKEN)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load_text(write(tmp_path / name, text))

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from limbeck.data.text import Example, Message, load_text
from limbeck.errors import DataError, SettingError

ROWS = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(10)]
LABELLED = [{"sentence": f"text {i}", "label": ("bad", "good")[i % 2]} for i in range(10)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return write(path, "".join(json.dumps(row) + "\n\n" for row in rows))
    if path.suffix == ".json":
        return write(path, json.dumps(rows))
    mark = "," if path.suffix == ".csv" else "\t"
    lines = [mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]
    return write(path, "\ufeff" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("end", [".jsonl", ".json", ".csv", ".tsv"])
def test_every_format_gives_the_same_examples(tmp_path: Path, end: str) -> None:
    data = load_text(write_rows(tmp_path / f"data{end}", ROWS), val_fraction=0)
    assert list(data.train) == [Example(i, f"What is {i}?", f"It is {i}.") for i in range(10)]
    assert (data.kind, data.separator, data.val, data.test) == ("prompt", "\n", None, None)


def test_the_splits_of_a_folder(tmp_path: Path) -> None:
    for name, count in (("train", 10), ("dev", 3), ("test", 4)):
        write_rows(tmp_path / f"{name}.jsonl", ROWS[:count])
    data = load_text(tmp_path, train_limit=5, test_limit=2)
    assert (len(data.train), len(data.split("val")), len(data.split("test"))) == (5, 3, 2)
    assert (
        data.train == load_text(tmp_path, train_limit=5).train != load_text(tmp_path, train_limit=5, split_seed=1).train
    )
    assert data.fingerprint() != load_text(tmp_path).fingerprint() == load_text(tmp_path).fingerprint()


def test_what_is_held_out_is_repeatable_and_in_proportion(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.csv", LABELLED * 2)
    data = load_text(path, val_fraction=0.2)
    assert data.classes == ("bad", "good")
    assert sorted(example.label for example in data.split("val")) == [0, 0, 1, 1]  # type: ignore[type-var]
    assert sorted(e.index for split in (data.train, data.split("val")) for e in split) == list(range(20))
    assert data == load_text(path, val_fraction=0.2)
    assert data != load_text(path, val_fraction=0.2, split_seed=1)


def test_a_document_is_held_out_at_a_line_and_whole(tmp_path: Path) -> None:
    text = "".join(f"Line {i} of the story.\n" for i in range(50))
    data = load_text(write(tmp_path / "story.txt", text), val_fraction=0.1)
    (train,), (val,) = data.train, data.split("val")
    assert data.kind == "text"
    assert train.completion + val.completion == text
    assert train.completion.endswith("\n")
    assert 0.05 < len(val.completion) / len(text) < 0.15


def test_chats_in_their_usual_forms(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    others = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    wanted = (Message("user", "Hi"), Message("assistant", "Hello"))
    for name, row in (("messages", {"messages": turns}), ("conversations", {"conversations": others})):
        data = load_text(write_rows(tmp_path / f"{name}.jsonl", [row]), val_fraction=0)
        assert (data.kind, data.train[0].messages) == ("chat", wanted)
    halves = {"prompt": turns[:1], "completion": turns[1:]}
    halved = load_text(write_rows(tmp_path / "halves.jsonl", [halves]), val_fraction=0)
    assert halved.train[0].messages == wanted


def test_instructions_with_and_without_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Sing.", "input": None, "output": "La"},
    ]
    data = load_text(write_rows(tmp_path / "alpaca.jsonl", rows), val_fraction=0)
    assert [example.prompt for example in data.train] == ["Add.\n1 2", "Sing."]


def test_columns_are_named_and_a_kind_is_asked_for(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    assert load_text(path, val_fraction=0).kind == "classification"
    assert load_text(path, val_fraction=0, kind="text").train[1] == Example(1, completion="b")
    named = load_text(path, val_fraction=0, columns={"prompt": "text", "completion": "label"})
    assert named.train[0] == Example(0, "a", "x")
    assert (named.separator, load_text(path, separator=" ").separator) == ("\n", " ")
    with pytest.raises(SettingError, match="unknown column 'txt'; did you mean 'text'"):
        load_text(path, columns={"text": "txt"})
    with pytest.raises(SettingError, match="unknown field 'promt'; did you mean 'prompt'"):
        load_text(path, columns={"promt": "text"})
    with pytest.raises(SettingError, match="does not make"):
        load_text(path, columns={"completion": "text"})
    with pytest.raises(SettingError, match="unknown kind 'chats'; did you mean 'chat'"):
        load_text(path, kind="chats")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no usual names of kind chat"):
        load_text(path, kind="chat")


def test_tabs_have_no_quotes_and_a_file_may_have_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "cola.tsv", 'x\t1\tHe said "no.\ny\t0\tSaid he "no.\n')
    data = load_text(path, header=False, columns={"text": 2, "label": 1}, val_fraction=0)
    assert [(e.prompt, e.label) for e in data.train] == [('He said "no.', 1), ('Said he "no.', 0)]
    quoted = write(tmp_path / "data.csv", 'text,label\n"one, two\nthree",0\nfour,1\n')
    assert load_text(quoted, val_fraction=0).train[0].prompt == "one, two\nthree"
    long = write(tmp_path / "long.csv", f"text\n{'x' * 200_000}\n")
    assert len(load_text(long, val_fraction=0).train[0].completion) == 200_000


def test_labels_are_numbers_of_classes_or_to_regress_on(tmp_path: Path) -> None:
    def labels(cells: list[Any]) -> tuple[tuple[str, ...], list[Any]]:
        path = write_rows(tmp_path / "data.jsonl", [{"text": "t", "label": cell} for cell in cells])
        data = load_text(path, val_fraction=0)
        return data.classes, [example.label for example in data.train]

    assert labels([0, 2, 1]) == (("0", "1", "2"), [0, 2, 1])
    assert labels(["b", "a"]) == (("a", "b"), [1, 0])
    assert labels([0.5, 4]) == ((), [0.5, 4.0])
    with pytest.raises(DataError, match="row 2: a label must be"):
        labels(["a", None])
    with pytest.raises(DataError, match="one class only, 'a'"):
        labels(["a", "a"])
    with pytest.raises(DataError, match="the label '-2', which is not among"):
        labels([0, 1, -2])


def test_classes_are_those_of_train(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", LABELLED)
    write_rows(tmp_path / "test.jsonl", [{"sentence": "x", "label": "ugly"}])
    with pytest.raises(DataError, match="test has the label 'ugly', which is not among the classes: bad, good"):
        load_text(tmp_path)
    write_rows(tmp_path / "test.jsonl", [{"sentence": "x", "label": -1}])
    assert load_text(tmp_path).test is None


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("pos", "neg"):
        for i in range(2):
            write(tmp_path / name / f"{i}.txt", f"{name} {i}")
    data = load_text(tmp_path, val_fraction=0)
    assert data.classes == ("neg", "pos")
    assert [(example.prompt, example.label) for example in data.train][1:3] == [("neg 1", 0), ("pos 0", 1)]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        load_text(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="nothing like that is in it"):
        load_text(tmp_path)
    write(tmp_path / "test.txt", "some text")
    with pytest.raises(DataError, match="it has test but no train"):
        load_text(tmp_path)
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_text(tmp_path / "latin.txt")
    write(tmp_path / "train.txt", "some text")
    write(tmp_path / "train.jsonl", '{"text": "a"}\n')
    with pytest.raises(SettingError, match=r"'train.jsonl' and 'train.txt' for the same split"):
        load_text(tmp_path)
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        load_text(tmp_path / "train.txt").split("test")


def test_settings_out_of_range(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", ROWS)
    with pytest.raises(SettingError, match="val_fraction"):
        load_text(path, val_fraction=1.0)
    with pytest.raises(SettingError, match="train_limit"):
        load_text(path, train_limit=0)
    with pytest.raises(SettingError, match="header"):
        load_text(path, header="no")  # type: ignore[arg-type]


def test_real_problems(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data" / "text" / "gsm8k.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = {path.parent for path in tmp_path.rglob("train.jsonl")}
    data = load_text(folder, val_fraction=0.1)
    assert (len(data.train) + len(data.split("val")), len(data.split("test"))) == (7473, 1319)
    assert data.train[0].prompt.startswith("Natalia sold clips")
    assert all("#### " in example.completion for example in data.train)

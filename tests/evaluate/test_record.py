"""Records from outside: read whole, or refused with a sentence."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.evaluate.record import SCHEMA, read_evaluation
from limbeck.report.evaluation import evaluation_sections

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a value as an evaluation.json."""

    def to_file(value: Any) -> Path:
        path = tmp_path / "evaluation.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return to_file


def test_every_part_is_read(write: Write) -> None:
    evaluation = read_evaluation(write(make_record()))

    assert evaluation.teacher == "teacher"
    assert evaluation.students == ["icd-seed0", "kd-seed0"]
    assert evaluation.networks["icd-seed0"].method == "icd+kd"
    assert evaluation.fidelity is not None
    assert evaluation.fidelity["icd-seed0"].correlation.matrix is not None
    assert evaluation.cost is not None
    assert evaluation.cost.networks["teacher"].latency[1].batch == 128


def test_what_is_written_is_what_is_read(write: Write, tmp_path: Path) -> None:
    evaluation = read_evaluation(write(make_record()))

    evaluation.write(tmp_path / "again.json")

    assert read_evaluation(tmp_path / "again.json") == evaluation


def test_a_file_of_schema_2_as_it_was_at_first_is_read_whole(write: Write) -> None:
    old = make_record() | {"schema": 2}
    del old["database"], old["kind"]

    told = json.loads(json.dumps(read_evaluation(write(old)).as_dict()))

    assert told | old == told | {"schema": 2}
    new = {name: value for name, value in told.items() if name not in old}
    assert new.pop("kind") == "images"
    assert set(new.values()) == {None}
    assert "database" in new


def test_what_later_versions_add_is_ignored_and_parts_may_be_missing(write: Write) -> None:
    value = make_record() | {"later": {"a": 1}}
    value["networks"]["teacher"]["later"] = [1]
    for part in ("cost", "examples", "remarks", "failures"):
        del value[part]

    evaluation = read_evaluation(write(value))

    assert evaluation.cost is None
    assert evaluation.remarks == ()


@pytest.mark.parametrize("name", ["data", "split", "classes", "networks", "command", "versions", "when"])
def test_what_an_evaluation_cannot_be_without(write: Write, name: str) -> None:
    value = make_record()
    del value[name]

    with pytest.raises(ValueError, match=rf"^evaluation\.json is no evaluation: {name}: field required$"):
        read_evaluation(write(value))


def test_a_rounding_beyond_one_is_one(write: Write) -> None:
    value = make_record()
    value["retrieval"]["teacher"]["map"] = 1.0000000000000002

    found = read_evaluation(write(value)).retrieval

    assert found is not None
    assert found["teacher"].map == 1.0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "damaged"),
        ('{"schema": 2, "data": "fru', "damaged"),
        ("[1, 2]", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"schema": 1}', f"schema 1; evaluations of schema {SCHEMA} are read"),
        ('{"schema": [2]}', "no schema"),
        ("{}", "no schema"),
        ('{"schema": 2}', "data: field required"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(write: Write, content: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^evaluation\.json ") as caught:
        read_evaluation(write(content))

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_files_and_folders_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "evaluation.json"
    binary.write_bytes(b"\xff\xfe\x00\x01")

    with pytest.raises(ValueError, match="damaged"):
        read_evaluation(binary)
    with pytest.raises(ValueError, match="cannot be read"):
        read_evaluation(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_evaluation(tmp_path / "missing.json")


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize(
    ("path", "wrong", "says"),
    [
        (("networks", "teacher", "accuracy"), float("nan"), "networks.teacher.accuracy"),
        (("networks", "teacher", "accuracy"), "0.9", "networks.teacher.accuracy"),
        (("networks", "teacher", "accuracy"), 1.5, "less than or equal to"),
        (("networks", "teacher", "count"), True, "networks.teacher.count"),
        (("networks", "icd-seed0", "role"), "teacher", "more than one teacher"),
        (("networks", "icd-seed0", "role"), "pupil", "'teacher' or 'student'"),
        (("networks",), {}, "networks"),
        (("classes",), ["apple"], "it has 5 classes, the data 1"),
        (("calibration", "nobody"), {"raw": make_record()["calibration"]["teacher"]["raw"]}, "no network 'nobody'"),
        (("fidelity", "icd-seed0", "correlation", "matrix"), [[0.0, 1.0]], "not 5 by 5"),
        (("database", "teacher", 0, "metric"), "l3", "'cosine' or 'l2'"),
        (("database", "teacher", 0, "top"), 50, "database: the networks have other metrics"),
        (("database", "teacher"), [], "database.teacher"),
        (("embedding_map", "labels", 0), 9, "label 9 is not among its 5 classes"),
        (("embedding_map", "networks", "teacher"), [[0.0, 1.0]], "1 points for 50 labels"),
        (("robustness", "teacher", "corruptions", 0, "severities"), [], "severities"),
        (("cost", "networks", "teacher", "latency", 0, "median_ms"), 0, "greater than 0"),
        (("examples", "icd-seed0", 0, "png"), '"><script>', "it is not base64"),
        (("examples", "icd-seed0", 0, "png"), base64.b64encode(b"<svg onload='x'>").decode(), "it is no PNG"),
        (("examples", "icd-seed0", 0, "width"), 10**9, "examples.icd-seed0.0.width"),
    ],
)
def test_values_that_cannot_be_are_named(write: Write, path: tuple[str | int, ...], wrong: Any, says: str) -> None:
    value = make_record()
    _at(value, path[:-1])[path[-1]] = wrong

    with pytest.raises(ValueError, match=r"^evaluation\.json is no evaluation: ") as caught:
        read_evaluation(write(value))

    assert says in str(caught.value)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in inside for place in _places(each, (*path, key))]


_PLACES = _places(make_record())
_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(_PLACES), junk=_JUNK)
def test_a_doctored_record_is_refused_or_gives_sections(
    tmp_path: Path, place: tuple[str | int, ...], junk: Any
) -> None:
    value = make_record()
    _at(value, place[:-1])[place[-1]] = junk
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(value), encoding="utf-8")

    try:
        found = read_evaluation(path)
    except ValueError as error:
        said = str(error)
    else:
        said = evaluation_sections(found)[0].title
    assert said.startswith(("evaluation.json ", "Evaluation: "))

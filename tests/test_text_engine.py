"""Which engine writes: how it is asked for, and what it does not go with."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from limbeck.config import CompareSettings
from limbeck.errors import MissingExtraError, SettingError
from limbeck.text_engine import Vllm, parse_text_engine
from limbeck.text_feeds import check_text_settings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("vlm", "unknown engine 'vlm'.*vllm"),
        ("vllm(memry=2)", "unknown argument of vllm 'memry'.*memory"),
        ("own(memory=2)", "unknown argument of own 'memory'"),
        ("vllm(memory=0)", "memory"),
        ("vllm(eager=2)", "eager"),
        ("vllm(4)", "text_engine"),
        ("vllm(", "text_engine"),
    ],
)
def test_an_engine_that_cannot_be(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_text_engine(text)


def test_the_engine_of_a_setting() -> None:
    assert parse_text_engine("own") is None
    if find_spec("vllm") is None:
        with pytest.raises(MissingExtraError, match=r"limbeck\[vllm\]"):
            parse_text_engine("vllm")
    else:
        assert parse_text_engine("vllm(memory=0.5, eager=True)") == Vllm(0.5, True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"policy": "fixed"}, "with fixed no model writes"),
        ({"policy": "speculative"}, "in turns"),
        ({"policy": "mixed(speculative, fixed)"}, "in turns"),
        (
            {"policy": "student", "student_sampling": "temperature=2.5"},
            "student_sampling: temperature is 2.5.*0.01 to 2",
        ),
        ({"policy": "student", "teacher_sampling": "temperature=0.001"}, "teacher_sampling: temperature is 0.001"),
        ({"policy": "teacher", "teacher": "server:http://localhost:1/v1?model=m"}, "the server writes"),
    ],
)
def test_settings_that_an_engine_does_not_go_with(
    settings: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.text_engine.parse_text_engine", lambda text: Vllm())  # It need not be installed here.
    given = {"data": "arithmetic", "teacher": "llama", "student": "llama", "text_engine": "vllm", **settings}
    with pytest.raises(SettingError, match=sentence):
        check_text_settings(CompareSettings.make(given))

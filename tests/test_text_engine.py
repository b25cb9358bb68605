"""Which engine writes: how it is asked for, and what it does not go with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_engine import Plain, PlainEngines
from text_training import QUICK, STUDENT, SUMS, TEACHER, distilled, network

import limbeck
from limbeck.config import CompareSettings
from limbeck.contest import contest_of, entries_of, jobs_of
from limbeck.errors import MissingExtraError, SettingError
from limbeck.models.language import plain_weights
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


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> PlainEngines:
    made = PlainEngines()
    for module in ("text_engine", "modalities.text"):
        monkeypatch.setattr(
            f"limbeck.{module}.parse_text_engine", lambda text: None if text == "own" else made, raising=True
        )
    return made


def test_a_run_opens_its_engine_once_and_closes_it(engines: PlainEngines) -> None:
    distilled(policy="mixed(teacher, student)", text_engine="vllm")
    assert [(each.opened > 0, each.closed) for each in engines.made] == [(True, 1), (True, 1)]
    assert all(each.wishes for each in engines.made)


def test_an_engine_is_closed_where_training_fails(engines: PlainEngines) -> None:
    class Broken(limbeck.engine.callbacks.Callback):
        def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distilled(policy="student", text_engine="vllm", log_steps=1, callbacks=[Broken()])
    assert [each.closed for each in engines.made] == [1]


def test_what_an_engine_cannot_run_is_said_before_training(
    engines: PlainEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(self: Any) -> None:
        raise SettingError("text_engine: no")

    monkeypatch.setattr("plain_engine.Plain.open", refused)
    with pytest.raises(SettingError, match="text_engine: no"):
        distilled(policy="student", text_engine="vllm", name="run", runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_started_is_closed_where_another_cannot(
    engines: PlainEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_refuses(self: Any) -> None:
        if self is engines.made[-1]:
            raise SettingError("text_engine: no")

    monkeypatch.setattr("plain_engine.Plain.open", second_refuses)
    with pytest.raises(SettingError, match="text_engine: no"):
        distilled(policy="mixed(teacher, student)", text_engine="vllm")
    assert engines.made[0].closed == 1


def test_students_of_a_comparison_have_the_engine_where_it_can_write(engines: PlainEngines) -> None:
    members = [
        {"objective": "kl", "policy": "student"},
        {"objective": "kl", "policy": "fixed"},
        {"objective": "kl", "policy": "speculative(top_k=3)"},
        {"objective": "jsd", "policy": "student", "text_engine": "own"},
    ]
    given = {"data": SUMS, "teacher": TEACHER, "student": STUDENT, "objectives": [], "members": members, "seeds": 1}
    contest = contest_of(CompareSettings.make({**given, "text_engine": "vllm"}))
    jobs = jobs_of(contest, entries_of(contest), None)
    used = {name: getattr(job.settings, "text_engine", None) for name, job in jobs.items()}
    assert [name for name, engine in used.items() if engine == "vllm"] == ["kl-policy-student-seed0"]
    none = contest_of(CompareSettings.make({**given, "members": members[1:], "text_engine": "vllm"}))
    with pytest.raises(SettingError, match="no student of this comparison has one"):
        entries_of(none)


def test_every_student_that_writes_has_its_own(engines: PlainEngines) -> None:
    settings = {name: value for name, value in QUICK.items() if name != "epochs"}
    compared = limbeck.compare(
        network(TEACHER, 1),
        STUDENT,
        SUMS,
        ["kl", "jsd"],
        policy="student",
        text_engine="vllm",
        tokenizer="characters",
        epochs=1,
        seeds=1,
        baselines=False,
        **settings,
    )
    assert not compared.failures
    # Two that were looked at before the first step, and one for each of the two passes.
    assert len(engines.made) == 4
    assert [bool(each.wishes) for each in engines.made] == [False, False, True, True]
    assert all(each.closed for each in engines.made)


def test_adapters_of_a_run_are_in_the_weights_that_an_engine_gets(
    engines: PlainEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    written = Plain.write

    def looked(self: Any, *given: Any) -> Any:
        found = dict(plain_weights(self.model))
        weights = self.model.named_parameters(remove_duplicate=False)
        base = {name.replace(".base_layer", ""): weight for name, weight in weights}
        seen.append(any(not torch.equal(weight, base[name]) for name, weight in found.items()))
        return written(self, *given)

    monkeypatch.setattr("plain_engine.Plain.write", looked)
    distilled(policy="student", text_engine="vllm", student_lora="rank=2")
    # B is zero before the first step.
    assert not seen[0]
    assert seen[-1]

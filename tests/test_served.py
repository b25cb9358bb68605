"""Runs whose teacher is on a server: its answers as texts, its log-probabilities as a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_training import STUDENT, TEACHER, distilled, network, weights

from limbeck.data.text import CharacterTokenizer
from limbeck.errors import LimbeckError, SettingError, TeacherError
from tests.servers.serving import Served, serving

# The characters of the sums of the other tests, in their order.
TOKENIZER = CharacterTokenizer("+0123456789=")


def served(**more: Any) -> Served:
    return Served(network(TEACHER, 1).eval(), TOKENIZER, **more)


def taught(found: Served, folder: Path, objective: str = "kl", *, asked: str = "", **settings: Any) -> Any:
    teacher = f"server:{found.url}?model=tiny&retries=0{asked}"
    return distilled(objective, teacher=teacher, student=network(STUDENT, 2), teacher_cache=folder, **settings)


def test_log_probabilities_of_a_server_teach_what_the_network_teaches(tmp_path: Path) -> None:
    # Not by adamw, whose steps are as large for a gradient of rounding errors as for any other.
    plain: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1}
    live = distilled(teacher=network(TEACHER, 1), student=network(STUDENT, 2), **plain)
    with serving(served()) as found:
        first = taught(found, tmp_path / "cache", cache_dtype="fp32", name="run", runs_dir=tmp_path, **plain)
        asked = len(found.asked)
        assert 96 <= asked <= 96 + 16, "each text once, and again where it lies in two files"
        second = taught(found, tmp_path / "cache", cache_dtype="fp32", **plain)
        assert len(found.asked) == asked
    for name, value in weights(live).items():
        torch.testing.assert_close(value, weights(first)[name], rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(weights(first)[name], weights(second)[name]), name
    assert first.result.teacher == "server:tiny"
    assert first.result.teacher_test is None


def test_the_key_is_not_in_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "very-secret")
    with serving(served(key="very-secret")) as found:
        taught(found, tmp_path / "cache", name="run", runs_dir=tmp_path, teacher_key="TINY_KEY", asked="&logprobs=3")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"TINY_KEY" in path.read_bytes() for path in files)
    assert not any(b"very-secret" in path.read_bytes() for path in files)


def test_answers_of_a_server_are_what_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(served()) as found:
        # A network that has learnt nothing ends nowhere, so the answers are as long as they may be, and none is left.
        with pytest.raises(LimbeckError, match="gave no answer with an end"):
            taught(found, tmp_path / "a", "ce", policy="teacher", teacher_sampling="temperature=0", train_limit=16)
        assert {body["max_tokens"] for body in found.asked} == {6}
        monkey = found.answer
        found.answer = lambda prompt, body: {**monkey(prompt, body), "text": "12", "finish_reason": "stop"}  # type: ignore[method-assign]
        monkeypatch.setattr("limbeck.progress._SAID_EVERY", 0.0)
        with caplog.at_level("INFO", logger="limbeck"):
            done = taught(found, tmp_path / "b", "ce", policy="teacher", epochs=6, lr=0.03)
        assert "95 of 96 prompts, 0 s left" in caplog.text
        count = len(found.asked)
        both = taught(found, tmp_path / "b", "ce + kl", policy="teacher")
        assert not [body for body in found.asked[count:] if isinstance(body["prompt"], str)]
    prompt = torch.tensor([TOKENIZER.encode("31+45=")])
    said = done.student(input_ids=prompt).logits[0, -1].argmax()
    assert TOKENIZER.decode([said]) == "1"
    assert both.result.test is not None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"teacher_cache": None}, "name a folder for it with --teacher-cache"),
        ({"policy": "student"}, "policies for it are 'fixed' and 'teacher'"),
        ({"objective": "ce + icd"}, "needs the teacher's .*embedding"),
        ({"teacher_key": "NOBODY_SET_THIS"}, "NOBODY_SET_THIS, and it is not set"),
        ({"data": "digits", "student": "convnet_tiny", "tokenizer": None}, "reads and writes text"),
    ],
)
def test_what_a_server_cannot_do_is_said_before_it_is_asked(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    given = {"teacher": "server:http://127.0.0.1:9/v1?model=a", "teacher_cache": tmp_path / "c", "objective": "kl"}
    with pytest.raises(SettingError, match=told):
        distilled(**{**given, **settings})


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving(served()) as found:
        pass
    with pytest.raises(TeacherError, match="gave no answer in 1 tries"):
        taught(found, tmp_path / "cache")

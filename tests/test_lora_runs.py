"""Runs in which adapters alone learn: resumed, compared, written merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_text_runs import Stop, classified, films
from text_training import QUICK, STUDENT, SUMS, TEACHER, distilled, network, weights

import limbeck
from limbeck.engine.checkpoint import load_checkpoint
from limbeck.errors import SettingError
from limbeck.models.language import create_language_model

LORA = "rank=2, targets=['q_proj', 'v_proj']"


def test_adapters_learn_and_a_run_with_them_resumes(tmp_path: Path) -> None:
    given: dict[str, Any] = {"student_lora": LORA, "runs_dir": tmp_path, "log_steps": 1, "checkpoint_steps": 1}
    first = network(STUDENT, 2).state_dict()
    whole = distilled(name="whole", policy="mixed", **given)
    with pytest.raises(KeyboardInterrupt):
        distilled(name="stopped", policy="mixed", callbacks=[Stop(8)], **given)
    saved = load_checkpoint(tmp_path / "stopped" / "checkpoints" / "last.pt")["learners"]["student"]
    assert all(".default." in name for name in saved["model"] if name.startswith("student"))
    resumed = distilled(name="stopped", policy="mixed", resume=True, **given)
    found = weights(whole)
    assert found.keys() == first.keys()
    for name, value in found.items():
        assert torch.equal(value, weights(resumed)[name]), name
        assert torch.equal(value, first[name]) != any(target in name for target in ("q_proj", "v_proj")), name
    assert whole.result.student_parameters == sum(value.numel() for value in network(STUDENT).parameters())
    assert whole.result.extra_parameters == 0


def test_the_best_epoch_is_kept_merged_for_others(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    network(STUDENT, 2).save_pretrained(tmp_path / "base")
    student = f"hf:{tmp_path / 'base'}"
    done = distilled(student=student, student_lora="rank=2", name="run", runs_dir=tmp_path, select="best", ema=0.5)
    ids = torch.arange(2, 12)[None]
    told = done.student(input_ids=ids).logits
    run = tmp_path / "run"
    merged = AutoModelForCausalLM.from_pretrained(run / "merged").eval()
    torch.testing.assert_close(merged(input_ids=ids).logits, told, rtol=1e-5, atol=1e-6)
    for text in (f"hf:{run / 'adapter'}", f"hf:{tmp_path / 'base'}@{run / 'student.safetensors'}"):
        again = create_language_model(text, task="causal").network.eval()
        torch.testing.assert_close(again(input_ids=ids).logits, told, rtol=1e-4, atol=1e-5)
    assert done.result.test is not None


def test_students_with_adapters_are_compared(tmp_path: Path) -> None:
    members = [
        {"objective": "kl"},
        {"objective": "kl", "student_lora": "rank=2"},
        {"objective": "kl", "student_lora": "rank=4, targets=['q_proj']"},
    ]
    found = limbeck.compare(
        network(TEACHER, 1),
        STUDENT,
        SUMS,
        [],
        tokenizer="characters",
        baselines=False,
        members=members,
        seeds=1,
        name="compared",
        runs_dir=tmp_path,
        **QUICK,
    )
    rows = [row for row in found.rows if not row.is_teacher]
    assert [row.variant for row in rows] == ["", "student_lora=rank=2", "student_lora=rank=4, targets=['q_proj']"]
    assert [len(group) for group in json.loads((tmp_path / "compared" / "groups.json").read_text())] == [3]
    alone = distilled(student=STUDENT, student_lora="rank=2", name="alone", runs_dir=tmp_path)
    (together,) = (done for name, done in found.students.items() if name.startswith("kl-student_lora-rank-2"))
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(together)[name]), name


@pytest.mark.parametrize("model", ["bert(layers=1, width=16, heads=2)", "llama(layers=1, width=16, heads=2)"])
def test_the_classifier_of_texts_learns_beside_the_adapters(model: str) -> None:
    done = limbeck.train(
        model,
        films(),
        epochs=4,
        batch_size=8,
        optimizer="adamw",
        lr=0.02,
        max_length=24,
        student_lora="rank=2",
    )
    assert done.result.test is not None
    assert done.result.test["accuracy"] > 0.6


def test_what_a_decoder_classifies_by_is_compared_beside_adapters() -> None:
    student = "llama(layers=1, width=8, heads=2)"
    done = classified(objective="ce + icd", student=student, student_lora="rank=2", augment="auto", epochs=1)
    assert done.result.test is not None


def test_a_network_that_was_given_is_as_before_when_the_run_fails() -> None:
    student = network(STUDENT, 2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        distilled(student=student, student_lora="rank=2", log_steps=1, callbacks=[Kill()])
    assert student.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


class Kill(Stop):
    def __init__(self) -> None:
        super().__init__(0)

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"student_lora": "rank=2, targets=['query']"}, "student_lora: .*'query'.*q_proj"),
        ({"student_lora": "8"}, "given by name"),
        ({"data": "digits", "student": "convnet_tiny", "teacher": "convnet_tiny"}, "student_lora is for text"),
    ],
)
def test_adapters_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        distilled(
            **{"student_lora": "rank=2", "tokenizer": "characters" if "data" not in settings else None, **settings}
        )

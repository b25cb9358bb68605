from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from text_training import QUICK, STUDENT, SUMS, TEACHER, distilled, network, weights

import limbeck
from limbeck.data.text import Example, TextData
from limbeck.engine.callbacks import Callback
from limbeck.errors import CacheError, DataError, LimbeckError, SettingError, SignalError
from limbeck.models.language import create_language_model


@pytest.mark.parametrize(
    "policy", ["fixed", "student", "teacher", "speculative(top_k=3, block=2)", "mixed", "two_stage"]
)
def test_every_policy_teaches_and_is_repeatable(policy: str) -> None:
    first, second = (distilled(policy=policy) for _ in range(2))
    assert weights(first).keys() == weights(second).keys()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name
    test = first.result.test
    assert test is not None
    assert {"accuracy", "nll", "perplexity", "exact_match", "rouge_l", "agreement", "kl"} <= set(test)
    assert test["answers"] == 8


def test_policies_see_different_texts() -> None:
    found = [
        weights(distilled(policy=policy))["lm_head.weight"] for policy in ("fixed", "student", "speculative(top_k=3)")
    ]
    assert not any(torch.equal(one, other) for one, other in pairwise(found))


@pytest.mark.parametrize("objective", ["ce + jsd", "ce + icd", "ce + 2*dist + rkd", "skewed", "ce"])
def test_objectives_of_vision_teach_language_models(objective: str) -> None:
    done = distilled(objective)
    assert done.result.test is not None
    assert done.result.test["nll"] < 3


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step >= self.step:
            loop.save()
            raise KeyboardInterrupt


@pytest.mark.parametrize("policy", ["fixed", "speculative(top_k=3, block='auto')"])
def test_a_run_resumes_in_the_middle_of_an_epoch_with_generation(policy: str, tmp_path: Path) -> None:
    given = {"policy": policy, "runs_dir": tmp_path, "log_steps": 1, "checkpoint_steps": 1}
    whole = distilled(name="whole", **given)
    with pytest.raises(KeyboardInterrupt):
        distilled(name="stopped", callbacks=[Stop(8)], **given)
    resumed = distilled(name="stopped", resume=True, **given)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert resumed.result.test == whole.result.test


def test_a_token_counts_the_same_whatever_its_micro_batch() -> None:
    # Not by adamw, whose steps are as large for a gradient of rounding errors as for any other.
    whole, parts = (distilled(accumulation=parts, optimizer="sgd", lr=0.1) for parts in (1, 4))
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=1e-4, atol=1e-5, msg=name)


def test_gradients_that_are_checkpointed_are_the_same() -> None:
    plain, checkpointed = distilled(), distilled(gradient_checkpointing=True)
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(checkpointed)[name]), name


def test_packed_rows_teach() -> None:
    done = distilled(packing=36, batch_size=4)
    assert done.result.test is not None


def test_a_run_by_name_keeps_its_tokenizer_and_its_answers(tmp_path: Path) -> None:
    quick = {name: value for name, value in QUICK.items() if name != "allow_weak_teacher"}
    limbeck.train(TEACHER, SUMS, name="teacher", runs_dir=tmp_path, **quick)
    settings = {**QUICK, "runs_dir": tmp_path}
    limbeck.distill(str(tmp_path / "teacher"), STUDENT, SUMS, "kl", name="student", **settings)
    answers = json.loads((tmp_path / "student" / "answers.json").read_text())
    assert len(answers) == 8
    assert set(answers[0]) == {"index", "prompt", "wanted", "student", "teacher"}
    records = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert {record["split"] for record in records} == {"train", "validation"}


def test_texts_of_two_classes_are_learnt() -> None:
    examples = [Example(i, prompt=f"{'good' if i % 2 else 'bad'} film {i}", label=i % 2) for i in range(80)]
    data = TextData("films", "classification", examples[:48], examples[48:64], examples[64:], ("bad", "good"))
    done = limbeck.train(
        "bert(layers=1, width=16, heads=2)", data, epochs=4, batch_size=8, optimizer="adamw", lr=0.01, max_length=24
    )
    assert done.result.test is not None
    assert done.result.test["accuracy"] > 0.9
    assert "perplexity" not in done.result.test


def test_students_with_a_policy_have_a_pass_of_their_own(tmp_path: Path) -> None:
    members = [
        {"objective": "kl", "policy": "fixed"},
        {"objective": "kl", "policy": "student"},
        {"objective": "kl", "policy": "speculative(top_k=3)"},
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
    assert {row.variant for row in found.rows if not row.is_teacher} == {
        "fixed",
        "student",
        "speculative(top_k=3)",
    }
    assert all(row.exact_match is not None for row in found.rows)
    groups = json.loads((tmp_path / "compared" / "groups.json").read_text())
    assert [len(group) for group in groups] == [1, 1, 1]
    names = {name.removesuffix("-seed0") for name in found.students}
    assert names == {"kl-policy-fixed", "kl-policy-student", "kl-policy-speculative-top_k-3"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy": "speculatve"}, "did you mean 'speculative'"),
        ({"policy": "student", "packing": 36}, "packing puts several prompts"),
        ({"student_sampling": "temprature=1"}, "did you mean 'temperature'"),
        ({"label_noise": 0.5}, "label_noise is for images"),
        ({"teacher_budget": 16}, "teacher_budget is for images"),
        (
            {"teacher_cache": "somewhere", "policy": "student"},
            "teacher_cache keeps what the teacher says of the data's own",
        ),
        ({"data": "digits", "student": "convnet_tiny", "teacher": "convnet_tiny"}, "tokenizer is for text"),
        ({"tokenizer": "bytes"}, "embeddings for"),
        ({"max_length": 4}, "no example is left"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(settings: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingError, DataError), match=told):
        distilled(**settings)


def test_a_prompt_that_with_its_answer_is_too_long_for_the_network() -> None:
    with pytest.raises(DataError, match="context is 32 tokens"):
        distilled(policy="student", max_new_tokens=40)


def test_answers_that_will_find_no_room_are_refused_before_the_training() -> None:
    with pytest.raises(DataError, match=r"student: its context is 32 tokens.*max_new_tokens=40"):
        distilled(max_new_tokens=40, teacher=network(TEACHER.replace(")", ", context=64)"), 1))
    assert distilled(max_new_tokens=40, answers=0).result.test


def test_text_without_prompts_has_nothing_to_answer(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("12+7=19 " * 60)
    with pytest.raises(SettingError, match="answers prompts, and"):
        distilled(policy="student", data=str(tmp_path / "story.txt"))
    done = distilled(data=str(tmp_path / "story.txt"))
    assert done.result.validation_last is not None


def films(rows: int = 80) -> TextData:
    examples = [
        Example(i, prompt=f"{'good' if i % 2 else 'bad'} film {'!' * (i % 4)}", label=i % 2) for i in range(rows)
    ]
    return TextData("films", "classification", examples[:-32], examples[-32:-16], examples[-16:], ("bad", "good"))


def classified(**settings: Any) -> Any:
    torch.manual_seed(1)
    teacher = create_language_model(
        "bert(layers=1, width=16, heads=2)", task="classification", vocabulary=260, num_classes=2, context=24
    ).network
    given = {"data": films(), "teacher": teacher, "student": "bert(layers=1, width=8, heads=2)", "tokenizer": "bytes"}
    return distilled(**{"max_length": 24, "augment": "none | mixup=0.4", **given, **settings})


MIXKD = "ce(views='first') + 0.5*ce(views='mixed') + kl"


def test_mixed_texts_teach_and_a_run_with_them_resumes(tmp_path: Path) -> None:
    given = {"objective": MIXKD, "runs_dir": tmp_path, "log_steps": 1, "checkpoint_steps": 1}
    whole = classified(name="whole", **given)
    with pytest.raises(KeyboardInterrupt):
        classified(name="stopped", callbacks=[Stop(4)], **given)
    resumed = classified(name="stopped", resume=True, **given)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert whole.result.test["accuracy"] >= 0.5


def test_micro_batches_of_mixed_texts_teach_the_same() -> None:
    # Not by a BERT, whose dropout draws otherwise for parts of a batch.
    given = {"student": "llama(layers=1, width=8, heads=2)", "optimizer": "sgd", "lr": 0.1, "epochs": 1}
    whole, parts = (classified(objective=MIXKD, accumulation=parts, **given) for parts in (1, 2))
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=1e-4, atol=1e-5, msg=name)


def test_what_is_mixed_and_what_the_teacher_says_of_it_matters() -> None:
    controls: list[dict[str, Any]] = [
        {},
        {"mixed_targets": True},
        {"augment": "none | none"},
        {"augment": "none"},
    ]
    found = [weights(classified(objective="ce(views='first') + kl", epochs=1, **each)) for each in controls]
    for one, other in combinations(found, 2):
        assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"augment": "flip"}, "texts are seen as they are or with mixup"),
        ({"augment": "none | mixup=-1"}, "mixup must be a finite number"),
        ({"augment": "none | mixup=0.4"}, "for texts that are classified"),
        ({"mixed_targets": True}, "mixed_targets is a control of mixup, and no text is mixed"),
    ],
)
def test_mixing_that_cannot_be_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        distilled(**settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": "dml"}, "are for images, and the data are texts"),
        ({"objective": "fitnet"}, "in networks on images alone; name layers of both networks with --taps"),
        ({"student_sampling": "top_k=-2"}, "student_sampling: top_k must be"),
        ({"teacher_sampling": "0.5"}, "teacher_sampling: "),
    ],
)
def test_what_text_has_not_is_said(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(LimbeckError, match=told):
        distilled(**settings)


def test_a_loss_that_reads_labels_of_mixtures_wrongly_is_refused() -> None:
    with pytest.raises(SignalError, match="reads the labels, and view 2 mixes"):
        classified(objective="dkd")
    with pytest.raises(SignalError, match="reads views that mix, and there is none"):
        classified(objective="ce(views='mixed')", augment="none")


def test_students_learn_from_what_a_teacher_said_before(tmp_path: Path) -> None:
    given: dict[str, Any] = {"teacher_cache": tmp_path / "cache", "cache_dtype": "fp32"}
    live, written, read = distilled(), distilled(**given), distilled(**given)
    packed = distilled(packing=36, batch_size=4, **given)
    for name, value in weights(live).items():
        torch.testing.assert_close(value, weights(written)[name], rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(weights(written)[name], weights(read)[name]), name
    assert packed.result.test is not None
    assert not (tmp_path / "cache" / "test").exists()


def test_the_largest_answers_of_a_teacher_take_little_room_and_teach(tmp_path: Path) -> None:
    done = distilled(teacher_cache=tmp_path / "cache", cache_logits="topk(4)")
    assert done.result.test is not None
    assert done.result.test["kl"] < 1
    with pytest.raises(CacheError, match=r"topk\(4\) there, dense now\. Give --cache-logits 'topk\(4\)'"):
        distilled(teacher_cache=tmp_path / "cache")


def test_a_cache_of_other_texts_or_of_another_teacher_is_refused(tmp_path: Path) -> None:
    distilled(teacher_cache=tmp_path / "cache")
    with pytest.raises(CacheError, match=r"The teacher: LlamaForCausalLM .* there, LlamaForCausalLM .* now"):
        distilled(teacher_cache=tmp_path / "cache", teacher=network(TEACHER, 9))
    with pytest.raises(CacheError, match=r"training data: .96 texts.* there, .48 texts"):
        distilled(teacher_cache=tmp_path / "cache", train_limit=48)
    with pytest.raises(
        CacheError, match=r"preprocessing: 'tokenizer of 14 tokens.* at most 12 tokens' there, .* at most 11"
    ):
        distilled(teacher_cache=tmp_path / "cache", max_length=11)
    with pytest.raises(CacheError, match="needs the teacher's embedding"):
        distilled("ce + icd", teacher_cache=tmp_path / "cache")


def test_classes_of_texts_are_kept_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {"augment": "auto", "objective": "ce + kd"}
    live = classified(**given)
    kept = [classified(teacher_cache=tmp_path / "cache", cache_dtype="fp32", **given) for _ in range(2)]
    for name, value in weights(live).items():
        torch.testing.assert_close(value, weights(kept[0])[name], rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(weights(kept[0])[name], weights(kept[1])[name]), name
    with pytest.raises(SettingError, match="teacher_cache keeps what the teacher says of each text as it is"):
        classified(teacher_cache=tmp_path / "cache")

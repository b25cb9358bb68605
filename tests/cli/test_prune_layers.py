"""``limbeck prune-layers``: what it prints and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from text_training import SUMS

from .conftest import Run, no_traceback


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, vocab_size=32)).save_pretrained(folder)
    return folder


def test_a_student_is_written_and_told_of(limbeck: Run, decoder: Path, tmp_path: Path) -> None:
    said = limbeck("prune-layers", f"hf:{decoder}", "--keep", "0,2", "--output", str(tmp_path / "student"))
    assert said.code == 0, said.err
    assert "3 before, 2 after: 0, 2" in said.out
    assert "no tokenizer is written" in said.err
    words = ["prune-layers", f"hf:{decoder}", "--keep", "1", "--output", str(tmp_path / "student"), "--json"]
    assert "exists" in no_traceback(limbeck(*words))[0]
    said = limbeck(*words, "--overwrite")
    assert json.loads(said.out)["layers"] == {"before": 3, "after": 1}


def test_a_teacher_that_was_trained_is_named_by_its_run(limbeck: Run, tmp_path: Path) -> None:
    """What ``--model hf:…`` became in a run, and not what it was before."""
    network = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=3, vocab_size=15
        )
    )
    network.save_pretrained(tmp_path / "before")
    words = [
        "--data",
        SUMS,
        "--tokenizer",
        "characters",
        "--epochs",
        "1",
        "--runs-dir",
        str(tmp_path),
        "--answers",
        "0",
    ]
    trained = limbeck("train", "--model", f"hf:{tmp_path / 'before'}", *words, "--name", "teacher")
    assert trained.code == 0, trained.err
    said = limbeck("prune-layers", str(tmp_path / "teacher"), "--keep", "2", "--output", str(tmp_path / "student"))
    assert said.code == 0, said.err
    kept = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student").state_dict()
    after = load_file(tmp_path / "teacher" / "student.safetensors")
    assert torch.equal(kept["lm_head.weight"], after["lm_head.weight"])
    assert not torch.equal(kept["lm_head.weight"], network.lm_head.weight)
    made = limbeck("train", "--model", "llama(layers=2, width=16, heads=2)", *words, "--name", "made")
    assert made.code == 0, made.err
    said = limbeck("prune-layers", str(tmp_path / "made"), "--keep", "1", "--output", str(tmp_path / "none"))
    assert "which was made in place" in " ".join(no_traceback(said))
    assert (
        "without student.safetensors"
        in no_traceback(limbeck("prune-layers", str(tmp_path), "--keep", "2", "--output", str(tmp_path / "none")))[0]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--keep", "0", "--output", "x"), "name a language model"),
        (("hf:x", "--output", "x"), "keep is not given"),
        (("hf:x", "--keep", "0"), "output is not given"),
        (("hf:x", "--keep", "0;2", "--output", "x"), "keep: expected whole numbers with commas between them"),
        (("hf:x", "--keep", "2,0", "--output", "x"), "must ascend, each once, got [2, 0]"),
        (("resnet8", "--keep", "0", "--output", "x"), "language has no model 'resnet8'"),
        (("hf:x", "--keep", "0", "--output", "x", "--task", "casual"), "task"),
    ],
)
def test_what_is_wrong_is_said(
    limbeck: Run, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = limbeck("prune-layers", *words)
    assert said.code == 2
    assert message in " ".join(no_traceback(said))


def test_language_models_are_listed(limbeck: Run) -> None:
    said = limbeck("list", "models", "language:*")
    assert "language:llama_tiny" in said.out
    assert "32,000 tokens" in said.err
    assert "language:*" in limbeck("list", "models").err

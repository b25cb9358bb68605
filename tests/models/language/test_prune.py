"""A student of some layers as a folder: whole or not there, and never over something else."""

from __future__ import annotations

import stat

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from limbeck.errors import SettingError
from limbeck.models.language import keep_layers, prune_layers, write_folder

from .families import decoder, encoder, tokens


@pytest.fixture
def teacher(tmp_path):
    """A saved decoder with a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    path = tmp_path / "teacher"
    decoder().save_pretrained(path)
    words = {f"w{number}": number for number in range(31)} | {"<end>": 31}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(path)
    return path


def test_others_read_the_folder(teacher, tmp_path):
    said: list[str] = []
    pruned = prune_layers(f"hf:{teacher}", [0, 2], tmp_path / "student", say=said.append)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert torch.equal(student.eval()(input_ids=tokens()).logits, keep_layers(decoder(), [0, 2])(tokens()).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "student").encode("w5") == [5]
    assert (pruned.task, pruned.kept, pruned.layers, said) == ("causal", (0, 2), (4, 2), [])
    assert pruned.parameters == (decoder().num_parameters(), student.num_parameters())
    assert pruned.written.tokenizer
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= pruned.written.files.keys()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "student").iterdir()}
    assert len(modes) == 1  # all as readable as any new file


def test_a_classifier_without_tokenizer_keeps_its_kind_and_type(tmp_path):
    encoder().to(torch.bfloat16).save_pretrained(tmp_path / "teacher")
    said: list[str] = []
    pruned = prune_layers(f"hf:{tmp_path}/teacher", [3], tmp_path / "student", say=said.append)
    student, loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert (pruned.task, pruned.written.tokenizer, student.dtype) == ("classification", False, torch.bfloat16)
    assert not any(loaded.values())
    assert said[0].startswith("no tokenizer is written: ")


def test_a_folder_is_replaced_only_when_asked_and_only_a_model(teacher, tmp_path):
    output = tmp_path / "student"
    output.mkdir()  # an empty one is as good as none
    prune_layers(f"hf:{teacher}", [0], output)
    with pytest.raises(SettingError, match=r"the folder .*student exists\. Name another .*overwrite"):
        prune_layers(f"hf:{teacher}", [1], output)
    assert prune_layers(f"hf:{teacher}", [1, 2], output, overwrite=True).layers == (4, 2)
    assert AutoModelForCausalLM.from_pretrained(output).config.num_hidden_layers == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(SettingError, match="holds something else than a language model"):
        prune_layers(f"hf:{teacher}", [0], mine, overwrite=True)
    with pytest.raises(SettingError, match="which is a file; name a folder"):
        prune_layers(f"hf:{teacher}", [0], mine / "thesis.tex", overwrite=True)
    with pytest.raises(SettingError, match="the folder of the model itself; name another one"):
        prune_layers(f"hf:{teacher}", [0], teacher, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "student", "teacher"]


def test_what_cannot_be_kept_writes_nothing(teacher, tmp_path):
    with pytest.raises(SettingError, match="must ascend"):
        prune_layers("hf:nowhere/at-all", [2, 0], tmp_path / "student")  # said before anything is read
    with pytest.raises(SettingError, match="has the layers 0 to 3, and 7 is to be kept"):
        prune_layers(f"hf:{teacher}", [7], tmp_path / "student")
    with pytest.raises(SettingError, match="Linear is no network of transformers"):
        write_folder(nn.Linear(1, 1), None, tmp_path / "student")
    assert not (tmp_path / "student").exists()

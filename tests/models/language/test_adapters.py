"""Adapters of a student: asked for in a line, alone in its state, part of its weights at the end, and read from folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from limbeck.errors import SettingError, WeightsError
from limbeck.models.language import Adapters, Lora, create_language_model, has_adapters, parse_lora
from limbeck.token_taps import TokenTapped
from limbeck.tokens import Tokens

from .families import small_llama, tokens


def logits(network: nn.Module) -> torch.Tensor:
    return network(input_ids=tokens()).logits


def untied() -> nn.Module:
    network = small_llama()
    network.lm_head.weight = nn.Parameter(network.lm_head.weight.detach().clone())
    network.config.tie_word_embeddings = False
    return network


def learnt(adapters: Adapters) -> Adapters:
    with torch.no_grad():
        for parameter in adapters.module.parameters():
            parameter.normal_(std=0.2)
    return adapters


def test_a_line_asks_for_adapters() -> None:
    assert parse_lora("rank=8") == Lora(8)
    found = parse_lora("rank=4, alpha=16, targets=['q_proj', 'v_proj'], dropout=0.1")
    assert found == Lora(4, 16, ("q_proj", "v_proj"), 0.1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8", "given by name"),
        ("alpha=2", "the rank among them"),
        ("rank=0", "rank must be a whole number of at least 1"),
        ("rank=4, aplha=2", "did you mean 'alpha'"),
        ("rank=4, alpha=0", "alpha must be greater than 0"),
        ("rank=4, targets=[3]", "targets are names of linear layers"),
    ],
)
def test_what_cannot_be_asked_for(text: str, told: str) -> None:
    with pytest.raises(SettingError, match=f"student_lora: .*{told}"):
        parse_lora(text)


def test_a_network_without_the_named_layers_says_which_it_has() -> None:
    with pytest.raises(SettingError, match=r"student_lora: .*'q_project'; did you mean 'q_proj'.*k_proj"):
        Adapters(small_llama(), Lora(2, targets=("q_project",)))


def test_adapters_at_weights_that_two_layers_share_are_refused() -> None:
    with pytest.raises(SettingError, match=r"lm_head shares its weights with model\.embed_tokens"):
        Adapters(small_llama(), Lora(2, targets=("lm_head",)))


def test_adapters_alone_learn_and_become_weights() -> None:
    network = untied()
    before, paths = logits(network), [path for path, _ in network.named_parameters()]
    adapters = Adapters(network, Lora(2, targets=("q_proj", "lm_head")))
    learning = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in adapters.module.parameters()}
    assert adapters.parameters == sum(parameter.numel() for parameter in adapters.module.parameters())
    torch.testing.assert_close(logits(network), before, rtol=0, atol=0)
    told = logits(learnt(adapters).__dict__["_network"])
    assert not torch.allclose(told, before, atol=1e-2)
    adapters.fold()
    assert not has_adapters(network)
    assert [path for path, parameter in network.named_parameters() if parameter.requires_grad] == paths
    torch.testing.assert_close(logits(network), told, rtol=1e-4, atol=1e-5)


def test_a_network_whose_adapters_are_taken_away_is_as_it_was_given() -> None:
    network = small_llama()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learnt(Adapters(network, Lora(2))).close()
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_is_tapped_at_an_adapted_layer_is_tapped_there_afterwards() -> None:
    network = untied()
    adapters = learnt(Adapters(network, Lora(2, targets=("lm_head", "o_proj"))))
    path = "model.layers.0.self_attn.o_proj"
    tapped = TokenTapped(network, causal=True, features=[path], classifier="lm_head").eval()
    ids = tokens()
    inputs = Tokens(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(ids.shape[1]).expand_as(ids))
    before = tapped(inputs)
    adapters.fold()
    after = tapped(inputs)
    torch.testing.assert_close(after.features[path], before.features[path], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.embedding, before.embedding, rtol=1e-4, atol=1e-5)
    tapped.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, torch.Tensor]:
    """A network's folder, one of adapters for it, and the logits of both together."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    network = small_llama()
    network.save_pretrained(base)
    adapters = learnt(Adapters(network, Lora(2, alpha=4), base=str(base)))
    adapters.fold()
    adapters.write(adapter)
    return base, adapter, logits(network.eval())


def test_a_folder_of_adapters_is_its_base_with_them(folders: tuple[Path, Path, torch.Tensor]) -> None:
    base, adapter, told = folders
    made = create_language_model(f"hf:{adapter}", task="causal")
    torch.testing.assert_close(logits(made.network.eval()), told, rtol=1e-4, atol=1e-5)
    assert not has_adapters(made.network)
    base.rename(base.with_name("moved"))
    again = create_language_model(f"hf:{adapter}(base='{base.with_name('moved')}')", task="causal")
    torch.testing.assert_close(logits(again.network.eval()), told, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_reads_what_was_written(folders: tuple[Path, Path, torch.Tensor]) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base, adapter, told = folders
    network = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    torch.testing.assert_close(logits(network), told, rtol=1e-4, atol=1e-5)


def test_adapters_that_cannot_be_read_are_refused(folders: tuple[Path, Path, torch.Tensor]) -> None:
    _, adapter, _ = folders
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    text, state = config.read_text(), load_file(weights)
    save_file(dict(list(state.items())[1:]), weights)
    with pytest.raises(WeightsError, match="are missing or unexpected"):
        create_language_model(f"hf:{adapter}", task="causal")
    config.write_text(json.dumps({**json.loads(text), "peft_type": "IA3"}))
    with pytest.raises(WeightsError, match="'IA3'; limbeck reads LORA"):
        create_language_model(f"hf:{adapter}", task="causal")
    config.write_text(text)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(WeightsError, match=r"holds no adapter_model.safetensors"):
        create_language_model(f"hf:{adapter}", task="causal")

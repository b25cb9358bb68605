"""Adapters: nothing changes at first, only they learn, and they can be added in, taken away, kept and put back."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from limbeck.errors import MissingExtraError, SettingError, WeightsError
from limbeck.models.language import (
    adapter_state,
    adapters_of,
    create_language_model,
    embedding_of,
    has_adapters,
    load_adapter_state,
    merged,
    plain_weights,
    vocabulary_of,
    with_lora,
    without_adapters,
)

from .families import DECODERS, ENCODERS, decoder, encoder, small_llama, tokens

ALL = [*((decoder, name) for name in DECODERS), *((encoder, name) for name in ENCODERS)]
LINEAR = {  # projections in the attention of a layer
    **dict.fromkeys(DECODERS, 4),
    **dict.fromkeys(ENCODERS, 4),
    "gpt2": 2,
    "gpt_neox": 2,
}


def logits(network: nn.Module) -> torch.Tensor:
    return network(input_ids=tokens()).logits


def trained(network: nn.Module, steps: int = 3) -> nn.Module:
    """After a few steps on what is trainable."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        logits(network).pow(2).mean().backward()
        optimizer.step()
    return network


@pytest.mark.parametrize(("make", "family"), ALL, ids=[name for _, name in ALL])
def test_adapters_change_nothing_until_they_learn(make, family):
    network = make(family)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whole = logits(network)
    adapted = with_lora(network, 2)
    assert torch.equal(logits(adapted), whole)
    state = adapter_state(adapted)
    assert len(state) == 2 * LINEAR[family] * 4
    assert all(not tensor.any() for name, tensor in state.items() if "lora_B" in name)
    assert {p.data_ptr() for p in adapted.parameters() if p.requires_grad} == {t.data_ptr() for t in state.values()}
    trained(adapted)
    assert not torch.allclose(logits(adapted), whole, atol=1e-3)
    with without_adapters(adapted):
        assert torch.equal(logits(adapted), whole)
    assert not torch.allclose(logits(adapted), whole, atol=1e-3)
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in adapted.state_dict().items()
    }
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_merged_is_the_sum_of_weights_and_adapters(family):
    make = encoder if family in ENCODERS else decoder
    plain = {name: w.double().clone() for name, w in make(family).named_parameters()}
    adapted = trained(with_lora(make(family), 2, alpha=6))
    with_adapters = logits(adapted)
    whole = merged(adapted)
    assert type(whole) is type(make(family))
    assert not has_adapters(whole)
    assert all(p.requires_grad for p in whole.parameters())
    torch.testing.assert_close(logits(whole), with_adapters, rtol=0, atol=1e-4)
    state = {name.removeprefix("base_model.model."): t.double() for name, t in adapter_state(adapted).items()}
    paths = {name.rpartition(".lora_")[0] for name in state}
    for name, found in whole.named_parameters():
        wanted, path = plain[name], name.removesuffix(".weight")
        if path in paths:
            added = 6 / 2 * state[f"{path}.lora_B.weight"] @ state[f"{path}.lora_A.weight"]
            wanted = wanted + (added.T if family == "gpt2" else added)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(logits(adapted), with_adapters)  # what was merged is a copy


def test_alpha_is_the_rank_where_it_is_not_given():
    adapted = with_lora(decoder(), 4)
    scales = {scale for m in adapted.modules() if hasattr(m, "lora_A") for scale in m.scaling.values()}
    assert scales == {1.0}


def test_targets_by_name_or_by_path():
    names = adapter_state(with_lora(decoder(), 1, targets=["q_proj", "model.layers.2.mlp.up_proj"]))
    assert len(names) == 2 * (4 + 1)
    assert {name.split(".")[-3] for name in names} == {"q_proj", "up_proj"}


def test_adapters_depend_on_the_global_seed_alone():
    def state(seed):
        network = decoder()
        torch.manual_seed(seed)
        return adapter_state(with_lora(network, 2))

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_state_goes_into_another_network_with_the_same_adapters():
    adapted, other = trained(with_lora(decoder(), 2)), with_lora(decoder(), 2)
    load_adapter_state(other, adapter_state(adapted))
    assert torch.equal(logits(other), logits(adapted))
    assert all(p.requires_grad for name, p in other.named_parameters() if "lora_" in name)
    before = logits(other)
    with pytest.raises(WeightsError, match=r"the adapters do not fit: .* \(32 in all\)"):
        load_adapter_state(other, adapter_state(with_lora(decoder(), 3)))
    with pytest.raises(WeightsError, match=r"the adapters do not fit: .* \(24 in all\)"):
        load_adapter_state(other, adapter_state(with_lora(decoder(), 2, targets=["q_proj"])))
    assert torch.equal(logits(other), before)


@pytest.mark.parametrize("make", [lambda: encoder("bert"), lambda: encoder("distilbert"), lambda: encoder("roberta")])
def test_a_new_classifier_learns_and_the_old_one_stays(make):
    network = make()
    whole = logits(network)
    adapted = with_lora(network, 2, train_classifier=True)
    heads = [name for name, p in adapted.named_parameters() if p.requires_grad and "lora_" not in name]
    assert heads
    assert all("classifier" in name for name in heads)
    assert torch.equal(logits(adapted), whole)
    trained(adapted)
    assert any("classifier" in name for name in adapter_state(adapted))
    torch.testing.assert_close(logits(merged(adapted)), logits(adapted), rtol=0, atol=1e-4)
    other = with_lora(make(), 2, train_classifier=True)
    load_adapter_state(other, adapter_state(adapted))
    assert torch.equal(logits(other), logits(adapted))
    with without_adapters(adapted):
        assert torch.equal(logits(adapted), whole)
    learnt = {p.data_ptr() for p in adapted.parameters() if p.requires_grad}
    assert {p.data_ptr() for p in adapters_of(network).parameters() if p.requires_grad} == learnt


@pytest.mark.parametrize("first", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(first):
    def gradients(checkpointing):
        network = decoder().train()
        if checkpointing and first:
            network.activation_checkpointing_enable()
        torch.manual_seed(5)
        adapted = with_lora(network, 2)
        if checkpointing and not first:
            adapted.activation_checkpointing_enable()
        assert network.model.gradient_checkpointing is checkpointing
        logits(adapted).pow(2).mean().backward()
        return [p.grad for p in adapted.parameters() if p.requires_grad]

    ours, plain = gradients(True), gradients(False)
    assert any(grad.any() for grad in plain)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


def test_adapted_networks_generate_and_tell_of_themselves():
    network = small_llama(pad=0)
    adapted = trained(with_lora(network, 2)).eval()
    assert (vocabulary_of(adapted), embedding_of(adapted).num_embeddings) == (32, 32)
    settings = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones(2, 9)}
    assert torch.equal(adapted.generate(input_ids=tokens(), **settings), merged(adapted).generate(tokens(), **settings))


def test_adapters_of_a_network_in_bfloat16_are_float32():
    adapted = with_lora(decoder().to(torch.bfloat16), 2)
    assert {tensor.dtype for tensor in adapter_state(adapted).values()} == {torch.float32}
    assert logits(adapted).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": 2, "alpha": 0}, "alpha must be greater than 0, got 0"),
        ({"rank": 2, "dropout": 1.0}, "dropout must be below 1"),
        (
            {"rank": 2, "targets": ["q_prj"]},
            r"unknown linear layer of LlamaForCausalLM 'q_prj'; did you mean 'q_proj'\?",
        ),
        ({"rank": 2, "targets": []}, "targets names no layer"),
        ({"rank": 2, "train_classifier": True}, "train_classifier: LlamaForCausalLM is no classifier"),
    ],
)
def test_what_cannot_be_adapted_says_why(arguments, message):
    network = decoder()
    with pytest.raises(SettingError, match=message):
        with_lora(network, **arguments)
    assert not has_adapters(network)


def test_other_errors(monkeypatch):
    plain = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(SettingError, match=r"Sequential has no linear layers in modules named .* Its linear layers: 0"):
        with_lora(plain, 2)
    for use in (merged, adapter_state, lambda network: without_adapters(network).__enter__()):
        with pytest.raises(SettingError, match="Sequential has no adapters; make them with with_lora"):
            use(plain)
    adapted = with_lora(decoder(), 2)
    with pytest.raises(SettingError, match="has adapters already"):
        with_lora(adapted, 2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"LoRA needs the package 'peft'.*pip install 'limbeck\[text\]'"):
        with_lora(decoder(), 2)


def test_a_folder_gets_adapters_like_any_other(tmp_path):
    decoder().save_pretrained(tmp_path)
    made = create_language_model(f"hf:{tmp_path}(keep_layers=[1, 2])", task="causal")
    assert len(adapter_state(with_lora(made.network, 2))) == 2 * 4 * 2


@pytest.mark.parametrize(("make", "family"), ALL, ids=[name for _, name in ALL])
def test_plain_weights_are_those_of_the_merged_network(make, family):
    network = trained(with_lora(make(family), 2, alpha=3))
    expected = dict(merged(network).named_parameters(remove_duplicate=False))
    found = dict(plain_weights(network))
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert not weight.requires_grad
        torch.testing.assert_close(weight, expected[name].detach(), msg=name)


def test_plain_weights_without_adapters_are_the_very_weights():
    network = small_llama()
    assert {name: weight.data_ptr() for name, weight in plain_weights(network)} == {
        name: weight.data_ptr() for name, weight in network.named_parameters(remove_duplicate=False)
    }

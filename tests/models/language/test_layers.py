"""Keeping layers: the copy computes what the kept layers compute, generates with a cache, and is written and read again."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from limbeck.errors import SettingError
from limbeck.models.language import keep_layers, layers_of

from .families import DECODERS, ENCODERS, LAYERS, decoder, encoder, tokens

KEPT = [0, 2, 3]
ALL = [*((decoder, name) for name in DECODERS), *((encoder, name) for name in ENCODERS)]
each_family = pytest.mark.parametrize(("make", "family"), ALL, ids=[name for _, name in ALL])


class _Passing(nn.Module):
    """In a layer's place, what came in goes out: what a network without the layer computes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)
        self.layer_type = getattr(layer, "layer_type", None)

    def forward(self, hidden, *args, **kwargs):
        return hidden


@each_family
def test_the_copy_computes_what_the_network_does_without_the_other_layers(make, family):
    network = make(family)
    whole, student = network(input_ids=tokens()).logits, keep_layers(network, KEPT)
    found = student(input_ids=tokens()).logits
    assert torch.equal(network(input_ids=tokens()).logits, whole)  # the network stays as it was
    inside = layers_of(network)
    dropped = inside[1]
    inside[1] = _Passing(dropped)
    torch.testing.assert_close(found, network(input_ids=tokens()).logits, rtol=0, atol=1e-6)
    assert not torch.allclose(found, whole, atol=1e-2)
    assert len(layers_of(student)) == student.config.num_hidden_layers == len(KEPT)


@each_family
def test_the_copy_is_written_and_read_again(make, family, tmp_path):
    student = keep_layers(make(family), KEPT)
    student.save_pretrained(tmp_path)
    again, loaded = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loaded.values())
    assert torch.equal(again.eval()(input_ids=tokens()).logits, student(input_ids=tokens()).logits)


@pytest.mark.parametrize("family", DECODERS)
def test_the_copy_generates_with_a_cache_as_without(family):
    student = keep_layers(decoder(family), [1, 3])
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones(2, 9)}
    cached, plain = (student.generate(tokens(), use_cache=cache, **settings) for cache in (True, False))
    assert torch.equal(cached, plain)
    steps = student(input_ids=tokens()[:, :5], use_cache=True)
    rest = student(input_ids=tokens()[:, 5:], past_key_values=steps.past_key_values)
    torch.testing.assert_close(rest.logits, student(input_ids=tokens()).logits[:, 5:], rtol=0, atol=1e-5)


def test_what_the_configuration_says_of_each_layer_follows():
    assert keep_layers(decoder("gemma3"), [1, 2]).config.layer_types == ["full_attention", "sliding_attention"]
    assert list(keep_layers(decoder("smollm3"), [1, 2]).config.no_rope_layers) == [0, 1]
    assert [
        module.layer_idx for module in keep_layers(decoder(), [1, 3]).modules() if hasattr(module, "layer_idx")
    ] == [
        0,
        1,
    ]


def test_weights_are_copies_and_ties_stay():
    network = decoder()
    student = keep_layers(network, KEPT)
    assert student.lm_head.weight is student.model.embed_tokens.weight
    shared = {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in student.parameters()}
    assert shared == set()
    assert torch.equal(layers_of(student)[1].mlp.up_proj.weight, layers_of(network)[2].mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, LAYERS], "LlamaForCausalLM has the layers 0 to 3, and 4 is to be kept"),
        ([2, 1], r"must ascend, each once, got \[2, 1\]"),
        ([1, 1], r"must ascend, each once, got \[1, 1\]"),
        ([-1], r"whole numbers from 0, as in \[0, 4, 8\], got \[-1\]"),
        ([], "whole numbers from 0"),
        ([True], "whole numbers from 0"),
        ("012", "whole numbers from 0"),
        (3, "whole numbers from 0"),
    ],
)
def test_layers_that_cannot_be_kept_are_named(layers, message):
    with pytest.raises(SettingError, match=message):
        keep_layers(decoder(), layers)


def test_a_network_without_one_list_of_layers_is_refused():
    with pytest.raises(SettingError, match="Linear does not say how many layers it has"):
        keep_layers(nn.Linear(1, 1), [0])
    sizes = {"hidden_size": 8, "embedding_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    shared = transformers.AlbertModel(transformers.AlbertConfig(**sizes, num_hidden_layers=3))
    with pytest.raises(SettingError, match="one list of its 3 layers of attention; found: none"):
        keep_layers(shared, [0])


def test_layers_that_differ_by_their_place_are_refused():
    config = transformers.Qwen2MoeConfig(
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=4,
        vocab_size=32,
        num_experts=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        mlp_only_layers=[3],
    )
    network = transformers.Qwen2MoeForCausalLM(config)
    assert len(layers_of(keep_layers(network, [0, 1]))) == 2
    with pytest.raises(SettingError, match="its configuration cannot say so for the ones to keep"):
        keep_layers(network, [0, 3])


def test_scales_that_depend_on_the_place_are_refused_where_they_would_change():
    config = DECODERS["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    network = transformers.GPT2LMHeadModel(config)
    assert len(layers_of(keep_layers(network, [0, 1]))) == 2
    with pytest.raises(SettingError, match=r"0\.attn\.scaling, 1\.attn\.scaling would not fit"):
        keep_layers(network, [1, 3])

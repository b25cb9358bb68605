"""What a network says of texts that are mixed at its word embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from limbeck.data.text.mixup import side_by_side
from limbeck.errors import TapError
from limbeck.models.language import create_language_model
from limbeck.signals import Batch
from limbeck.teachers import FrozenTeacher, MixedTargets
from limbeck.token_taps import TokenTapped
from limbeck.tokens import Tokens

PAD = 0
MODELS = ["bert(layers=1, width=16, heads=2)", "llama(layers=1, width=16, heads=2)"]


def network(model: str) -> nn.Module:
    torch.manual_seed(0)
    made = create_language_model(model, task="classification", vocabulary=30, num_classes=3, context=12, pad=PAD, end=1)
    return made.network.eval()


def texts(lengths: list[int], seed: int) -> Batch:
    width = max(lengths)
    drawn = torch.randint(2, 30, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    attention = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    places = torch.arange(width).expand_as(drawn).where(attention, 0)
    return Batch(Tokens(drawn.where(attention, PAD), attention, places), torch.arange(len(lengths)) % 3)


SHARE = torch.tensor([0.7, 0.25, 1.0, 0.5])
ONE, OTHER = texts([7, 3, 4, 5], 0), texts([4, 8, 6, 5], 1)


def mixed(share: Tensor = SHARE) -> Batch:
    return side_by_side(ONE, [(OTHER, share)], PAD)


def slow(model: nn.Module, i: int, share: float) -> Tensor:
    """(C,) logits of a mixture, by its embeddings, which are made one by one."""
    embed = model.get_input_embeddings()
    one, other = (batch.inputs.tokens[i][batch.inputs.attention[i]] for batch in (ONE, OTHER))
    length = max(len(one), len(other)) if share < 1 else len(one)
    rows = []
    for place in range(length):
        row = torch.zeros(16)
        for tokens, part in ((one, share), (other, 1 - share)):
            if place < len(tokens):
                row = row + part * embed(tokens[place])
        rows.append(row)
    if hasattr(
        model, "model"
    ):  # a decoder takes the last of the embeddings it is given, where it is told of no padding
        hidden = model.model(inputs_embeds=torch.stack(rows)[None]).last_hidden_state
        return model.score(hidden[0, -1])
    return model(inputs_embeds=torch.stack(rows)[None]).logits[0]


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_word_embeddings_are_mixed(model: str) -> None:
    made = network(model)
    wanted = torch.stack([slow(made, i, float(SHARE[i])) for i in range(4)])
    tapped = TokenTapped(made, causal=False)
    torch.testing.assert_close(tapped(mixed().inputs).logits, wanted, rtol=1e-4, atol=1e-5)
    again = copy.deepcopy(tapped)
    assert torch.equal(again(mixed().inputs).logits, tapped(mixed().inputs).logits), "a copy mixes what it is given"
    tapped.close()
    assert not made.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_a_text_with_the_whole_share_is_itself(model: str) -> None:
    tapped = TokenTapped(network(model), causal=False)
    alone = tapped(ONE.inputs).logits
    torch.testing.assert_close(tapped(mixed(torch.ones(4)).inputs).logits, alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(tapped(ONE.inputs).logits, alone), "nothing of the mixture stays behind"


def test_the_gradient_reaches_both_texts_embeddings() -> None:
    made = network(MODELS[0])
    TokenTapped(made, causal=False)(mixed(torch.full((4,), 0.5)).inputs).logits.square().sum().backward()
    gradient = made.get_input_embeddings().weight.grad.abs().sum(dim=1)
    for batch in (ONE, OTHER):
        assert (gradient[batch.inputs.tokens[batch.inputs.attention].unique()] > 0).all()


def test_a_network_that_does_not_tell_its_embeddings_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            return input_ids[:, :3].float()

    tapped = TokenTapped(Silent(), causal=False)
    assert tapped(ONE.inputs).logits.shape == (4, 3)
    with pytest.raises(TapError, match="Silent does not tell its word embeddings"):
        tapped(mixed().inputs)


@pytest.mark.parametrize("model", MODELS)
def test_mixed_targets_are_the_mixture_of_two_answers(model: str) -> None:
    tapped, batch = TokenTapped(network(model), causal=False), mixed()
    teacher = MixedTargets(FrozenTeacher(tapped))
    said = teacher.signals(batch.inputs, batch).logits.softmax(dim=-1)
    for i in range(4):
        own, other = (tapped(each.inputs[i : i + 1]).logits[0].softmax(0) for each in (ONE, OTHER))
        torch.testing.assert_close(said[i], SHARE[i] * own + (1 - SHARE[i]) * other, rtol=1e-4, atol=1e-6)
    assert torch.equal(teacher.signals(ONE.inputs, ONE).logits, tapped(ONE.inputs).logits)

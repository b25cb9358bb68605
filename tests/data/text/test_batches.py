from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.data.text import (
    ByteTokenizer,
    EvalTokenBatches,
    TokenBatches,
    TokenSplit,
    encode,
    encode_classification,
    only_prompts,
)
from limbeck.data.text.collate import Side
from limbeck.errors import SettingError
from limbeck.signals import IGNORED, Batch, Batches
from limbeck.tokens import Tokens

from .conftest import documents, prompts
from .test_classify import labelled

BYTES = ByteTokenizer()
PAIRS = [("ab", "cde"), ("a", "b"), ("abcdefg", "hi"), ("", "xyz"), ("klm", "n"), ("o", "pqrstuvw"), ("ab", "c")]


def split_of(pairs: list[tuple[str, str]] = PAIRS) -> TokenSplit:
    return encode(prompts(*pairs), "train", BYTES, 64)[0]


def learnt(batches: Iterable[Batch]) -> dict[int, list[tuple[list[int], int]]]:
    """For each example, by its index: what stands before each token that is learnt, and that token."""
    found: dict[int, list[tuple[list[int], int]]] = {}
    for batch in batches:
        for row, column in batch.learnt.nonzero().tolist():
            documents = (
                torch.zeros_like(batch.inputs.tokens[row])
                if batch.inputs.documents is None
                else batch.inputs.documents[row]
            )
            number = int(documents[column])
            index = int(batch.index[row] if batch.inputs.documents is None else batch.index[row, number])
            mine = (
                (documents == number)
                & batch.inputs.attention[row]
                & (torch.arange(batch.inputs.tokens.shape[1]) <= column)
            )
            found.setdefault(index, []).append(
                (batch.inputs.tokens[row][mine].tolist(), int(batch.labels[row, column]))
            )
    return found


def wanted(pairs: list[tuple[str, str]]) -> dict[int, list[tuple[list[int], int]]]:
    found = {}
    for index, (prompt, completion) in enumerate(pairs):
        row, first = [*(prompt + completion).encode(), 257], max(1, len(prompt.encode()))
        found[index] = [(row[:place], row[place]) for place in range(first, len(row))]
    return found


TEXTS = st.text("abcdefg", max_size=9)
MANY = st.lists(st.tuples(TEXTS, TEXTS.filter(bool)), min_size=1, max_size=12)


@given(MANY, st.sampled_from(["left", "right"]), st.sampled_from([None, 19, 30]), st.integers(1, 4), st.booleans())
def test_every_completion_is_learnt_token_by_token_once_an_epoch(
    pairs: list[tuple[str, str]], side: Side, packing: int | None, size: int, grouped: bool
) -> None:
    batches = TokenBatches(split_of(pairs), 1, batch_size=size, side=side, packing=packing, grouped=grouped)
    assert learnt(batches.epoch(2)) == wanted(pairs)


@given(MANY, st.sampled_from([None, 19, 30]), st.integers(1, 3), st.booleans())
def test_shares_of_processes_make_the_whole(
    pairs: list[tuple[str, str]], packing: int | None, world_size: int, budget: bool
) -> None:
    split = split_of(pairs)
    size = {"token_budget": 40 * world_size} if budget else {"batch_size": 2 * world_size}
    try:
        parts = [
            TokenBatches(split, 1, packing=packing, rank=rank, world_size=world_size, **size)  # type: ignore[arg-type]
            for rank in range(world_size)
        ]
    except SettingError:
        assert len(split) < world_size or packing is not None
        return
    epochs = [list(part.epoch(0)) for part in parts]
    assert len({len(part) for part in parts} | {len(epoch) for epoch in epochs}) == 1
    for shares in zip(*epochs, strict=True):
        assert len({len(share) for share in shares}) == 1
    found = [learnt(epoch) for epoch in epochs]
    together = {index: steps for part in found for index, steps in part.items()}
    assert sum(map(len, found)) == len(together)
    assert all(wanted(pairs)[index] == steps for index, steps in together.items())
    if packing is None:
        assert len(pairs) - len(together) == len(pairs) % world_size


@pytest.mark.parametrize("packing", [None, 24])
def test_resume_from_the_middle(packing: int | None) -> None:
    def batches() -> TokenBatches:
        return TokenBatches(split_of(), 3, batch_size=2, packing=packing)

    made: Batches = batches()
    full, rest = list(made.epoch(1)), list(batches().epoch(1, start=1))
    assert len(full) == len(made) == len(rest) + 1
    for one, other in zip(full[1:], rest, strict=True):
        assert torch.equal(one.inputs.tokens, other.inputs.tokens)
        assert torch.equal(one.labels, other.labels)
    with pytest.raises(SettingError, match="start must be 0 to"):
        list(made.epoch(1, start=9))


def test_what_a_batch_holds() -> None:
    split = split_of([("ab", "c"), ("d", "efg")])
    (right,) = EvalTokenBatches(split, 2, by_length=False)
    assert right.inputs.tokens.tolist() == [[97, 98, 99, 257, 256], [100, 101, 102, 103, 257]]
    assert right.labels.tolist() == [[-100, 99, 257, -100, -100], [101, 102, 103, 257, -100]]
    assert right.inputs.positions.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    assert right.index.tolist() == [0, 1]
    (left,) = EvalTokenBatches(split, 2, by_length=False, side="left")
    assert left.inputs.tokens.tolist() == [[256, 97, 98, 99, 257], [100, 101, 102, 103, 257]]
    assert left.inputs.attention.tolist()[0] == [False, True, True, True, True]
    assert left.labels.tolist()[0] == [-100, -100, 99, 257, -100]
    assert left.inputs.positions.tolist()[0] == [0, 0, 1, 2, 3]
    assert (right.inputs.tokens.dtype, right.labels.dtype, right.inputs.attention.dtype) == (
        torch.int64,
        torch.int64,
        torch.bool,
    )


def test_what_a_packed_batch_holds() -> None:
    (batch,) = TokenBatches(split_of([("ab", "c"), ("d", "ef"), ("g", "h")]), 0, batch_size=2, packing=8).epoch(0)
    batch = batch[batch.inputs.attention.sum(1).argsort(descending=True)]
    assert batch.inputs.documents is not None
    assert batch.inputs.documents.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, -1, -1, -1, -1, -1]]
    assert batch.inputs.positions.tolist()[0] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert sorted(batch.index[0].tolist()) == [0, 1]
    assert batch.index[1].tolist() == [2, -1]
    assert batch.labels[1].tolist() == [104, 257] + [IGNORED] * 6
    mask = batch.inputs.block_mask()[:, 0]
    for row, numbers in enumerate(batch.inputs.documents.tolist()):
        for i, one in enumerate(numbers):
            for j, other in enumerate(numbers):
                assert bool(mask[row, i, j]) is (i == j or (j <= i and one == other and one >= 0))


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_are_filled_up_on_the_left(side: Side) -> None:
    split = split_of([("ab", "c"), ("d", "efghi")])
    (batch,) = EvalTokenBatches(split, 2, by_length=False, side=side)
    found = only_prompts(batch, 256)
    assert found.inputs.tokens.tolist() == [[97, 98], [256, 100]]
    assert found.inputs.attention.tolist() == [[True, True], [False, True]]
    assert found.inputs.positions.tolist() == [[0, 1], [0, 0]]
    assert not found.learnt.any()
    (same,) = EvalTokenBatches(split, 2, prompts=True)
    assert torch.equal(same.inputs.tokens, found.inputs.tokens)
    bare, _ = encode(prompts(("ab", ""), ("d", "")), "train", BYTES, 64, prompts_only=True)
    (alone,) = EvalTokenBatches(bare, 2, prompts=True)
    assert torch.equal(alone.inputs.tokens, found.inputs.tokens)
    assert torch.equal(alone.index, found.index)


def test_evaluation_covers_every_row_once() -> None:
    split = split_of()
    for by_length in (True, False):
        parts = [EvalTokenBatches(split, 2, by_length=by_length, rank=rank, world_size=2) for rank in range(2)]
        index = [batch.index for part in parts for batch in part]
        assert sorted(torch.cat(index).tolist()) == list(range(7))
        assert [len(part) for part in parts] == [2, 2]
    widths = [batch.inputs.tokens.shape[1] for batch in EvalTokenBatches(split, 2)]
    assert widths == sorted(widths, reverse=True)


@pytest.fixture(scope="module")
def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def losses(network: torch.nn.Module, batches: Iterable[Batch]) -> dict[int, list[float]]:
    """For each example, by its index: −log p of each token that is learnt."""
    found: dict[int, list[float]] = {}
    for batch in batches:
        with torch.no_grad():
            logits: Tensor = network(**batch.inputs.causal()).logits
        for row, column in batch.learnt.nonzero().tolist():
            number = 0 if batch.inputs.documents is None else int(batch.inputs.documents[row, column])
            index = int(batch.index[row] if batch.inputs.documents is None else batch.index[row, number])
            value = -logits[row, column].log_softmax(0)[batch.labels[row, column]]
            found.setdefault(index, []).append(value.item())
    return found


@pytest.mark.parametrize(("side", "packing"), [("left", None), ("right", 24), ("left", 24)])
def test_a_network_sees_the_same_in_any_batch(llama: torch.nn.Module, side: Side, packing: int | None) -> None:
    split = split_of()
    alone = losses(llama, EvalTokenBatches(split, 1))
    batched = losses(llama, TokenBatches(split, 0, batch_size=4, side=side, packing=packing).epoch(0))
    assert alone.keys() == batched.keys() == set(range(len(PAIRS)))
    for index, values in alone.items():
        assert batched[index] == pytest.approx(values, abs=1e-5)


def test_documents_that_share_a_row_would_see_each_other_without_the_mask(llama: torch.nn.Module) -> None:
    split = split_of()
    alone = losses(llama, EvalTokenBatches(split, 1))

    class Blind(torch.nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> object:
            causal = torch.ones_like(attention_mask).tril()
            return llama(input_ids=input_ids, attention_mask=causal, position_ids=position_ids)

    seen = losses(Blind(), TokenBatches(split, 0, batch_size=4, packing=24).epoch(0))
    assert max(abs(a - b) for index in alone for a, b in zip(alone[index], seen[index], strict=True)) > 1e-4


def test_a_batch_is_a_pytree_and_moves() -> None:
    (batch,) = EvalTokenBatches(split_of(), 9)
    leaves, spec = torch.utils._pytree.tree_flatten(batch)
    again = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, Batch)
    assert isinstance(again.inputs, Tokens)
    assert torch.equal(again.inputs.tokens, batch.inputs.tokens)
    assert batch.to("meta").inputs.tokens.device.type == "meta"
    assert len(batch[:2]) == 2


def test_settings_that_do_not_fit() -> None:
    split = split_of()
    longest = int(split.lengths.max())
    cases = [
        ({}, "either batch_size"),
        ({"batch_size": 2, "token_budget": 40}, "either batch_size"),
        ({"batch_size": 3, "world_size": 2}, "divisible by the number of processes"),
        ({"token_budget": longest}, None),
        ({"token_budget": longest, "world_size": 2}, f"give at least {2 * longest}"),
        ({"batch_size": 2, "packing": longest - 1}, f"the longest example, {longest} tokens"),
        ({"batch_size": 8, "drop_last": True}, "leaves no batch of the 7 rows"),
        ({"batch_size": 2, "side": "top"}, "side"),
        ({"batch_size": 2, "rank": 2}, "rank must be"),
    ]
    for settings, told in cases:
        if told is None:
            TokenBatches(split, 0, **settings)  # type: ignore[arg-type]
            continue
        with pytest.raises(SettingError, match=told):
            TokenBatches(split, 0, **settings)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="example 3 has no prompt"):
        EvalTokenBatches(split, 2, prompts=True)
    classes, _ = encode_classification(labelled("a", "b"), "train", BYTES, 9)
    with pytest.raises(SettingError, match="can have one only"):
        TokenBatches(classes, 0, batch_size=1, packing=9)
    with pytest.raises(SettingError, match="no prompts"):
        EvalTokenBatches(classes, 2, prompts=True)
    packed = next(TokenBatches(split, 0, batch_size=1, packing=24).epoch(0))
    with pytest.raises(ValueError, match="packed rows"):
        only_prompts(packed, 256)


def test_the_batch_size_of_a_budget_is_a_mean() -> None:
    split, _ = encode(documents("a" * 100), "train", BYTES, 11)
    batches = TokenBatches(split, 0, token_budget=33)
    assert (len(split), len(batches), batches.batch_size) == (10, 4, 2)
